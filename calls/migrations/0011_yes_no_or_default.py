"""Yes-or-no settings of a number may be blank, which stands for the setting's value."""

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
        ('calls', '0010_say_language_and_voice'),
    ]

    operations = [
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
