"""Twilio's language and voice for each number; and yes-or-no settings that may be blank, which stands for the default."""

from django.db import migrations, models


def blank_was_off(apps, schema_editor):
    """Off always meant the setting's value for recording."""
    apps.get_model("calls", "PhoneNumber").objects.filter(record_calls=False).update(record_calls=None)


def off_was_blank(apps, schema_editor):
    numbers = apps.get_model("calls", "PhoneNumber").objects
    numbers.filter(record_calls=None).update(record_calls=False)
    numbers.filter(discloses_ai=None).update(discloses_ai=True)


class Migration(migrations.Migration):

    dependencies = [
        ('calls', '0008_search_columns'),
    ]

    operations = [
        migrations.AddField(
            model_name='phonenumber',
            name='say_language',
            field=models.CharField(blank=True, default='', help_text="Of Twilio's voice, such as zh-CN. Blank: default.", max_length=16, verbose_name='language'),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name='phonenumber',
            name='say_voice',
            field=models.CharField(blank=True, default='', help_text="Twilio's voice, such as Polly.Zhiyu. Blank: default.", max_length=64, verbose_name='voice'),
            preserve_default=False,
        ),
        migrations.AlterField(
            model_name='phonenumber',
            name='discloses_ai',
            field=models.BooleanField(blank=True, help_text='Spoken to callers before anything else.', null=True, verbose_name='AI disclosure'),
        ),
        migrations.AlterField(
            model_name='phonenumber',
            name='record_calls',
            field=models.BooleanField(blank=True, null=True),
        ),
        migrations.RunPython(blank_was_off, off_was_blank),
    ]
