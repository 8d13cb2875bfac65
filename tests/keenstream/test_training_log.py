from pathlib import Path

import pytest

from keenstream.training_log import readable_log
from offline.event_log import log_parts, read_articles, read_events
from schemas.errors import UsageError

NEWS = "".join(f"N{n}\tsports\tgolf\tHeadline {n}\tAbout {n}\thttps://example.org/{n}\t[]\t[]\n" for n in range(1, 5))
BEHAVIORS = "1\tU1\t11/15/2019 8:55:22 AM\tN1 N2\tN3-1 N4-0\n2\tU2\t11/15/2019 9:00:00 AM\t\tN3-0 N2-1\n"


def test_minds_files_become_events_and_articles_of_the_first_click(tmp_path: Path) -> None:
    (tmp_path / "news.tsv").write_text(NEWS)
    (tmp_path / "behaviors.tsv").write_text(BEHAVIORS)
    with readable_log(tmp_path) as folder:
        events = [event for part in log_parts(folder) for event in read_events(part) if event]
        published = {article.article_id: article.published_at for article in read_articles(folder)}
    assert sorted((event.user_id, event.article_id) for event in events) == [
        ("U1", "N1"),
        ("U1", "N2"),
        ("U1", "N3"),
        ("U2", "N2"),
    ]
    first = min(event.occurred_at for event in events)
    clicked = {event.article_id: event.occurred_at for event in sorted(events, key=lambda event: -event.occurred_at)}
    assert published == clicked | {"N4": first}
    assert not folder.exists()


def test_other_folders_are_read_where_they_are_and_half_of_mind_is_refused(tmp_path: Path) -> None:
    with readable_log(tmp_path) as folder:
        assert folder == tmp_path
    (tmp_path / "behaviors.tsv").write_text(BEHAVIORS)
    with pytest.raises(UsageError, match=r"no news\.tsv"), readable_log(tmp_path):
        pass
