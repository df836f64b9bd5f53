"""What ranks of one machine share, as far as one process shows it; tests/test_layerwise_ranks.py has several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from layerwise import sharing
from layerwise.errors import EndedElsewhere, UserError


@pytest.fixture
def of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be the first of two ranks of a machine, of which the other says nothing."""
    monkeypatch.setattr(sharing.ranks, "world", lambda: 2)
    monkeypatch.setattr(sharing.ranks, "all_of", lambda value: [value, None])
    if not sharing.is_shared():
        pytest.skip("only Linux has files in memory")


def test_one_process_shares_nothing(tmp_path: Path) -> None:
    given = {"images": np.zeros((2, 1_000_000), dtype=np.uint8)}
    assert sharing.loaded_once(lambda: given) is given
    assert sharing.part(5) == slice(5)
    assert not list(tmp_path.iterdir())
    assert sharing.shared_tensor((2, 3), torch.bfloat16, tmp_path).shape == (2, 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("of_two")
def test_what_was_filled_in_its_place_is_not_copied() -> None:
    made: dict[str, np.ndarray] = {}

    def load() -> dict[str, np.ndarray]:
        images = sharing.room((4, 1_000_000))
        images[:] = np.arange(4)[:, None]
        records = np.zeros(300_000, dtype=[("size", "<i8"), ("name", "S3")])
        records["name"] = b"abc"
        # The first begins where the images do, and is another array; of the others each may be given the last's place.
        made.update(images=images, turned=images.T, none=sharing.room((0, 3)), records=records)
        made.update(label=np.arange(200_000), index=np.arange(200_000)[::-1])
        return made

    before = len(list(Path("/proc/self/fd").iterdir()))
    found = sharing.loaded_once(load)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert all(np.array_equal(found[name], array) and found[name].dtype == array.dtype for name, array in made.items())
    found["images"][0, 0] = 9
    assert made["images"][0, 0] == 9 and found["turned"][0, 0] == 0
    assert sharing.room((4, 1_000_000)).base is None  # which nobody else is to have


@pytest.mark.usefixtures("of_two")
def test_memory_that_cannot_be_opened_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_path", lambda handle: "/proc/self/fd/99999")
    message = r"memory that ranks of one machine share cannot be opened \(/proc/self/fd/99999: .*as one user and in one"
    with pytest.raises(UserError, match=message):
        sharing.shared_tensor((2, 3), torch.float32)


def test_an_error_of_the_first_rank_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing.ranks, "world", lambda: 2)
    monkeypatch.setattr(sharing.ranks, "rank", lambda: 1)
    monkeypatch.setattr(sharing.ranks.launch, "local_number", lambda: 1)
    monkeypatch.setattr(sharing.ranks, "all_of", lambda value: [(False, None), value])
    with pytest.raises(EndedElsewhere, match="rank 0 ended"):
        sharing.ranks.of_machine(lambda: pytest.fail("not its work"))
