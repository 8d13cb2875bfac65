from stream.transport.watchdog import CommitWatch, Progress


def test_waiting_without_a_commit_for_too_long_is_a_stall() -> None:
    watch: CommitWatch[str] = CommitWatch(10.0)
    seen = {"a": Progress(5, True), "b": Progress(None, True)}
    assert watch.stalled(0.0, seen) == []
    assert watch.stalled(10.0, seen) == []
    assert watch.stalled(10.1, seen) == ["a", "b"]


def test_a_commit_starts_the_time_anew() -> None:
    watch: CommitWatch[str] = CommitWatch(10.0)
    watch.stalled(0.0, {"a": Progress(5, True)})
    assert watch.stalled(9.0, {"a": Progress(6, True)}) == []
    assert watch.stalled(18.0, {"a": Progress(6, True)}) == []
    assert watch.stalled(19.1, {"a": Progress(6, True)}) == ["a"]


def test_an_idle_partition_never_stalls() -> None:
    watch: CommitWatch[str] = CommitWatch(10.0)
    for now in range(0, 100, 5):
        assert watch.stalled(float(now), {"a": Progress(5, False)}) == []
    assert watch.stalled(101.0, {"a": Progress(5, True)}) == []


def test_a_partition_that_was_away_starts_anew() -> None:
    watch: CommitWatch[str] = CommitWatch(10.0)
    watch.stalled(0.0, {"a": Progress(5, True)})
    watch.stalled(9.0, {})
    assert watch.stalled(11.0, {"a": Progress(5, True)}) == []
