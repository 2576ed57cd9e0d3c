"""The language and the voice in which Twilio speaks to callers of a number."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('calls', '0006_plain_texts'),
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
    ]
