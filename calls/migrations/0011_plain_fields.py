"""Without help texts: the form of the admin explains the fields. Changes no column."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("calls", "0010_release_and_outputs"),
    ]

    operations = [
        migrations.AlterField(
            model_name="phonenumber",
            name="assistant_id",
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AlterField(
            model_name="phonenumber",
            name="closed_message",
            field=models.TextField(blank=True),
        ),
        migrations.AlterField(
            model_name="phonenumber",
            name="discloses_ai",
            field=models.BooleanField(blank=True, null=True, verbose_name="AI disclosure"),
        ),
        migrations.AlterField(
            model_name="phonenumber",
            name="disclosure",
            field=models.TextField(blank=True),
        ),
        migrations.AlterField(
            model_name="phonenumber",
            name="fallback_number",
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AlterField(
            model_name="phonenumber",
            name="greeting",
            field=models.TextField(blank=True),
        ),
        migrations.AlterField(
            model_name="phonenumber",
            name="hours",
            field=models.TextField(blank=True),
        ),
        migrations.AlterField(
            model_name="phonenumber",
            name="overrides",
            field=models.JSONField(blank=True, default=dict),
        ),
        migrations.AlterField(
            model_name="phonenumber",
            name="say_language",
            field=models.CharField(blank=True, max_length=16, verbose_name="language"),
        ),
        migrations.AlterField(
            model_name="phonenumber",
            name="say_voice",
            field=models.CharField(blank=True, max_length=64, verbose_name="voice"),
        ),
        migrations.AlterField(
            model_name="phonenumber",
            name="time_zone",
            field=models.CharField(blank=True, max_length=64),
        ),
    ]
