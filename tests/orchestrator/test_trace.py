"""The recorder of traces: what its file says, from whatever threads the spans came."""

from __future__ import annotations

import json
import threading
import time

import pytest

from upx.trace import HEAD, HOST, WORKERS, PictureTrace, Row, Tracer, measured

THREAD, WORKER = Row(HOST, "upx-picture_0"), Row(WORKERS, "nearest-1-0")


def written(tracer: Tracer) -> dict:
    return json.loads("".join(tracer.lines()))


def events(tracer: Tracer, kinds: str = "Xbei") -> list[dict]:
    return [event for event in written(tracer)["traceEvents"] if event["ph"] in kinds]


def test_a_trace_is_one_object_of_events_that_viewers_load() -> None:
    tracer = Tracer()
    now = time.perf_counter()
    tracer.add("decode", THREAD, now, now + 0.5, {"picture": 1})
    text = "".join(tracer.lines())
    assert text.startswith(HEAD)
    content = json.loads(text)
    assert (content["displayTimeUnit"], content["otherData"]) == ("ms", {"program": "upx", "dropped": 0})
    for event in content["traceEvents"]:
        assert {"ph", "name", "pid", "tid"} <= set(event)
        assert event["ph"] == "M" or event["ts"] >= 0
    (span,) = [event for event in content["traceEvents"] if event["ph"] == "X"]
    assert (span["name"], span["cat"], span["args"]) == ("decode", "upx", {"picture": 1})
    assert span["dur"] == pytest.approx(500_000, abs=0.01)


def test_an_empty_trace_is_a_whole_file_too() -> None:
    tracer = Tracer()
    assert tracer.empty
    assert events(tracer) == []


def test_every_row_has_its_name_and_a_thread_of_its_own() -> None:
    tracer = Tracer()
    now = time.perf_counter()
    tracer.add("inference", WORKER, now + 1, now + 2, {})
    tracer.add("decode", THREAD, now, now + 1, {})
    tracer.instant("died", Row(WORKERS, "nearest-1-1"))
    names = {(e["name"], e["pid"], e["tid"]): e["args"].get("name") for e in events(tracer, "M")}
    processes = {pid: name for (kind, pid, _), name in names.items() if kind == "process_name"}
    threads = {tid: (processes[pid], name) for (kind, pid, tid), name in names.items() if kind == "thread_name"}
    assert sorted(threads.values()) == [("upx", THREAD.name), ("workers", "nearest-1-0"), ("workers", "nearest-1-1")]
    assert {threads[event["tid"]][1]: event["name"] for event in events(tracer)} == {
        THREAD.name: "decode", "nearest-1-0": "inference", "nearest-1-1": "died",
    }  # fmt: skip


def test_events_come_in_order_and_what_holds_others_comes_before_them() -> None:
    tracer = Tracer()
    now = time.perf_counter()
    tracer.add("inner", THREAD, now, now + 1, {})
    tracer.add("outer", THREAD, now, now + 2, {})
    tracer.add("first", THREAD, now - 0.001, now - 0.0005, {})
    assert [event["name"] for event in events(tracer)] == ["first", "outer", "inner"]


def test_spans_that_may_overlap_are_pairs_with_an_id_of_their_own() -> None:
    tracer = Tracer()
    spans = [tracer.begin("queue", THREAD, {"tiles": [number]}, apart=True) for number in range(2)]
    for span in spans:
        tracer.end(span, more=1)
    pairs = events(tracer)
    assert [event["ph"] for event in pairs] == ["b", "b", "e", "e"]
    begun, ended = ({event["id"]: event for event in pairs if event["ph"] == kind} for kind in "be")
    assert begun.keys() == ended.keys()
    assert all(begun[key]["ts"] <= ended[key]["ts"] for key in begun)
    assert [event["args"] for event in begun.values()] == [{"tiles": [0], "more": 1}, {"tiles": [1], "more": 1}]


def test_a_pair_that_took_no_time_still_begins_before_it_ends() -> None:
    tracer = Tracer()
    now = time.perf_counter()
    tracer.end(tracer.begin("queue", THREAD, {}, start=now, apart=True), end=now)
    assert [event["ph"] for event in events(tracer)] == ["b", "e"]


def test_what_still_lasts_ends_with_the_file_and_says_so() -> None:
    tracer = Tracer()
    tracer.begin("inference", WORKER, {"tiles": [3]})
    tracer.begin("queue", THREAD, {}, apart=True)
    found = events(tracer)
    assert all(event["args"] == {"unfinished": True} for event in found if event["ph"] == "b")
    assert [event["args"] for event in found if event["ph"] == "X"] == [{"tiles": [3], "unfinished": True}]


def test_no_span_ends_before_it_began() -> None:
    tracer = Tracer()
    now = time.perf_counter()
    tracer.end(tracer.begin("inference", WORKER, {}, start=now + 1), end=now)
    assert [event["dur"] for event in events(tracer)] == [0]


def test_a_full_trace_keeps_what_it_has_and_says_what_it_lacks() -> None:
    tracer = Tracer(most=3)
    for number in range(10):
        tracer.end(tracer.begin("queue", THREAD, {"tiles": [number]}))
        tracer.instant("died", WORKER)
    assert tracer.dropped == 17
    content = written(tracer)
    assert content["otherData"]["dropped"] == 17
    kept = [event["name"] for event in content["traceEvents"] if event["ph"] in "Xi"]
    assert kept == ["queue", "died", "queue", "17 events were dropped"]


def test_nothing_is_recorded_once_the_file_was_written() -> None:
    tracer = Tracer()
    lasting = tracer.begin("inference", WORKER, {})
    lines = tracer.lines()
    next(lines)
    tracer.begin("inference", WORKER, {})
    tracer.end(lasting)
    assert len([line for line in lines if '"X"' in line]) == 1


def test_threads_write_at_the_same_time_and_each_has_a_row() -> None:
    tracer, count = Tracer(), 500
    gate = threading.Barrier(4)

    def work(number: int) -> None:
        gate.wait(10)
        for _ in range(count):
            with tracer.measure("work", picture=number):
                pass

    threads = [threading.Thread(target=work, args=(number,), name=f"t{number}") for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = events(tracer)
    assert len(found) == 4 * count
    assert len({event["tid"] for event in found}) == 4


def test_a_block_is_measured_and_its_error_is_named() -> None:
    tracer = Tracer()
    with pytest.raises(ValueError, match="bad"), measured(tracer, "prepare", backend="span"):
        raise ValueError("bad")
    with measured(None, "prepare"):
        pass
    (span,) = events(tracer)
    assert (span["name"], span["args"]) == ("prepare", {"backend": "span", "error": "ValueError"})


def test_a_picture_s_stages_and_tiles_carry_its_number() -> None:
    tracer = Tracer()
    picture = PictureTrace(tracer, 7)
    picture.stage("decode", 1.0, 2.0)
    picture.stage("tile", 2.0, 3.0, (4, 5))
    assert [event["args"] for event in events(tracer)] == [{"picture": 7}, {"picture": 7, "tiles": [4, 5]}]
    before = time.perf_counter()
    tiles = picture.tiles([4, 5])
    assert [tile.index for tile in tiles] == [4, 5]
    assert all(tile.picture is picture and before <= tile.at <= time.perf_counter() for tile in tiles)
