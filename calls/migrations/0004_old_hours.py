"""Mark the hours of all earlier calls, so that their hourly aggregates are computed."""

from datetime import UTC

from django.db import migrations
from django.db.models.functions import TruncHour


def mark_hours(apps, schema_editor):
    calls, rows = apps.get_model("calls", "Call").objects, apps.get_model("calls", "CallHour")
    hours = calls.order_by().annotate(hour=TruncHour("started_at", tzinfo=UTC))
    found = hours.values_list("hour", "simulated").distinct()
    rows.objects.bulk_create(
        [rows(hour=hour, simulated=simulated) for hour, simulated in found],
        ignore_conflicts=True,
        batch_size=1000,
    )


class Migration(migrations.Migration):
    dependencies = [("calls", "0003_word_search")]
    operations = [migrations.RunPython(mark_hours, migrations.RunPython.noop)]
