"""Texts of fields and permissions in plain words; no column changes."""

from django.db import migrations, models


NAMES = {
    "view_numbers": "Can view full phone numbers",
    "act_on_call": "Can hang up, speak in and transfer live calls",
    "place_call": "Can place outbound calls",
}


def rename_permissions(apps, schema_editor):
    """Django creates missing permissions, but does not update the names of those that exist."""
    permissions = apps.get_model("auth", "Permission").objects.filter(content_type__app_label="calls")
    for codename, name in NAMES.items():
        permissions.filter(codename=codename).update(name=name)


class Migration(migrations.Migration):

    dependencies = [
        ('auth', '0012_alter_user_first_name_max_length'),
        ('calls', '0005_routes_and_bills'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='call',
            options={'ordering': ('-started_at', '-id'), 'permissions': [('view_numbers', 'Can view full phone numbers'), ('export_call', 'Can export calls'), ('act_on_call', 'Can hang up, speak in and transfer live calls'), ('place_test_call', 'Can place a test call'), ('place_call', 'Can place outbound calls')]},
        ),
        migrations.AlterField(
            model_name='phonenumber',
            name='assistant_id',
            field=models.CharField(blank=True, help_text="Vapi's id of the assistant. Blank: default.", max_length=64),
        ),
        migrations.AlterField(
            model_name='phonenumber',
            name='closed_message',
            field=models.TextField(blank=True, help_text='Spoken outside the opening hours if there is no fallback number.'),
        ),
        migrations.AlterField(
            model_name='phonenumber',
            name='discloses_ai',
            field=models.BooleanField(default=True, help_text='Spoken to callers before anything else.', verbose_name='AI disclosure'),
        ),
        migrations.AlterField(
            model_name='phonenumber',
            name='disclosure',
            field=models.TextField(blank=True, help_text='The words of the disclosure. Blank: default.'),
        ),
        migrations.AlterField(
            model_name='phonenumber',
            name='fallback_number',
            field=models.CharField(blank=True, help_text='Dialed when the assistant fails.', max_length=64),
        ),
        migrations.AlterField(
            model_name='phonenumber',
            name='time_zone',
            field=models.CharField(blank=True, help_text='Time zone of the opening hours, such as Europe/Berlin. Blank: UTC.', max_length=64),
        ),
        migrations.RunPython(rename_permissions, migrations.RunPython.noop),
    ]
