"""What is kept with a call: outputs, recordings and the assistant of Vapi's report, and our release."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.conf import settings
from django.test import TestCase

from bridge.journal import AssistantReported, CallOffered, Entry, StreamStarted, from_line, to_line
from calls.ingest import upsert
from calls.models import Call, CallOutput
from calls.tests.builders import make_call, make_staff
from calls.vapi.webhooks import END_OF_CALL, read_recording_urls, read_report, read_structured_outputs

STEREO, BOTH, CALLER = (f"https://storage.vapi.ai/{name}.wav" for name in ("stereo", "both", "caller"))
RECORDING = {"stereoUrl": STEREO, "mono": {"combinedUrl": BOTH, "customerUrl": CALLER}}
OUTPUTS = {
    "0198-a": {"name": "Appointment", "result": True},
    "0198-b": {"name": "Reason", "result": "toothache"},
    "0198-c": {"name": "Score", "result": 7.5},
    "0198-d": {"name": "Slots", "result": ["Thu 10:00", "Fri 9:00"]},
    "0198-e": {"name": "Nothing", "result": None},
}
RESULTS = {"Appointment": True, "Reason": "toothache", "Score": 7.5, "Slots": ["Thu 10:00", "Fri 9:00"]}


@pytest.mark.parametrize(
    "message",
    [
        {"artifact": {"structuredOutputs": OUTPUTS}},
        {"call": {"artifact": {"structuredOutputs": {}}, "structuredOutputs": OUTPUTS}},
        {"structuredOutputs": list(OUTPUTS.values())},
        {"artifact": {"structuredOutputs": RESULTS}},
    ],
    ids=["artifact", "call", "list", "by name"],
)
def test_structured_outputs_are_read_by_name(message: dict[str, Any]) -> None:
    assert read_structured_outputs(message) == RESULTS


@pytest.mark.parametrize(
    "value", [None, 3, "text", [3, None, {}], {"": 1}, {"x": None}, {"x": {"result": None}}]
)
def test_structured_outputs_without_a_name_or_a_result_are_left_out(value: Any) -> None:
    assert read_structured_outputs({"artifact": {"structuredOutputs": value}}) == {}


def test_the_number_of_structured_outputs_is_bounded() -> None:
    many = {str(number): {"name": f"{number}" + "n" * 200, "result": 1} for number in range(500)}
    found = read_structured_outputs({"artifact": {"structuredOutputs": many}})
    assert len(found) == 50 and max(map(len, found)) == 80


@pytest.mark.parametrize(
    ("message", "urls"),
    [
        ({"artifact": {"recording": RECORDING}}, {"stereo": STEREO, "both": BOTH, "caller": CALLER}),
        ({"recordingUrl": BOTH, "stereoRecordingUrl": STEREO}, {"both": BOTH, "stereo": STEREO}),
        ({"artifact": {"recordingUrl": BOTH}}, {"both": BOTH}),
        ({"call": {"recordingUrl": BOTH}}, {"both": BOTH}),
        ({"artifact": {"presignedRecordingUrl": BOTH}}, {}),
        ({"recordingUrl": "http://plain.example/a.wav"}, {}),
        ({"recordingUrl": "javascript:alert(1)"}, {}),
        ({"recordingUrl": "https://x/" + "y" * 1000}, {}),
        ({"recordingUrl": 3, "artifact": {"recording": "x"}}, {}),
    ],
)  # fmt: skip
def test_recordings_are_read_from_every_place(message: dict[str, Any], urls: dict[str, str]) -> None:
    assert read_recording_urls(message) == urls


def make_report(call_sid: str, **parts: Any) -> AssistantReported:
    message = {"type": END_OF_CALL, "call": {"id": "v-1", "assistantId": "a-9"}, "artifact": parts}
    return read_report(message, END_OF_CALL, call_sid, time.time())


class RowTests(TestCase):
    def setUp(self) -> None:
        self.call = make_call()
        self.report(structuredOutputs=OUTPUTS, recordingUrl=BOTH)

    def report(self, **parts: Any) -> None:
        upsert.apply_entries([from_line(to_line(make_report(self.call.call_sid, **parts)))])
        self.call.refresh_from_db()

    def pairs(self) -> set[str]:
        return set(CallOutput.objects.values_list("pair", flat=True))

    def test_single_values_become_rows_and_a_later_report_replaces_them(self) -> None:
        self.assertEqual(self.call.vapi_report["structured_outputs"], RESULTS)
        self.assertEqual(self.pairs(), {"Appointment: yes", "Reason: toothache", "Score: 7.5"})
        self.report(structuredOutputs={"x": {"name": "Reason", "result": "\x00\ud800" + "r" * 500}})
        (pair,) = self.pairs()
        self.assertTrue(pair.startswith("Reason: ") and len(pair) == 200)
        self.report(summary="without outputs")
        self.assertEqual(len(self.pairs()), 1)

    def test_calls_are_filtered_by_output_and_by_assistant(self) -> None:
        other = make_call(assistant_id="a-2")
        self.client.force_login(make_staff("view_call"))
        for query, listed, left_out in (
            ("output=Appointment: yes", self.call, other),
            ("assistant=a-9", self.call, other),
            ("assistant=a-2", other, self.call),
        ):
            page = self.client.get(f"/calls/?{query}").content.decode()
            self.assertIn(f"/calls/{listed.pk}/", page)
            self.assertNotIn(f"/calls/{left_out.pk}/", page)
        self.assertIn("Reason: toothache", page)  # as a choice
        self.assertIn("a-9", page)

    def test_recordings_are_shown_with_permission_only(self) -> None:
        for permissions, is_shown in (
            (("view_call", "export_call"), False),
            (("view_call", "view_recording"), True),
        ):
            self.client.force_login(make_staff(*permissions))
            for url in (self.call.get_absolute_url(), f"/admin/calls/call/{self.call.pk}/change/"):
                page = self.client.get(url).content.decode()
                self.assertEqual(BOTH in page, is_shown and "/admin/" not in url, (permissions, url))
        self.client.force_login(make_staff("view_call", "export_call"))
        export = self.client.get("/calls/export?format=json")
        self.assertEqual(export.status_code, 200)

    def test_outputs_are_escaped_on_the_page(self) -> None:
        self.report(structuredOutputs={"x": {"name": "<b>n", "result": "<script>x"}})
        self.client.force_login(make_staff("view_call"))
        for url in (self.call.get_absolute_url(), "/calls/"):
            page = self.client.get(url).content.decode()
            self.assertIn("&lt;b&gt;n: ", page)
            self.assertNotIn("<script>x", page)

    def test_each_call_keeps_its_assistant_and_our_release(self) -> None:
        self.assertEqual(self.call.assistant_id, "a-9")  # from the report, as nothing else named it
        at = time.time()
        entries: list[Entry] = [
            CallOffered("CA7", at, "+15550100134", "+15559870000", release="1.2+abc"),
            StreamStarted("CA7", at, "MZ7", assistant_id="dialed"),
            make_report("CA7"),
        ]
        upsert.apply_entries([from_line(to_line(entry)) for entry in entries])
        call = Call.objects.get(call_sid="CA7")
        self.assertEqual((call.assistant_id, call.release), ("dialed", "1.2+abc"))
        self.assertRegex(settings.RELEASE, r"^\d+\.\d+\.\d+")
