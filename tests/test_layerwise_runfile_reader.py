"""run.h5: round trip, layout, digests, and every kind of file that must be refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import make_run, small_config, train_network

from layerwise.datasets import load_dataset
from layerwise.errors import UsageError, UserError
from layerwise.model.network import LayerwiseNetwork
from layerwise.runfile import Rows, RunFile, run_id
from layerwise.runfile.describe import describe_run
from layerwise.runfile.writer import ALIGNMENT, create_run

GOLDEN = Path(__file__).parent / "golden" / "run-v1.h5"


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    with create_run(path, force=False) as writer:
        for name, values in arrays.items():
            writer.array(name, values)
        writer.attributes("provenance", {"run_id": "r1"})
    return path


def rows_of(run: RunFile, name: str) -> Rows:
    found = run._rows_or_none(name)
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "u1", "<i8"])
def test_rows_come_back_as_they_were_written(tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 200, (1000, 3, 2)).astype(dtype)
    with RunFile(write(tmp_path / "run.h5", {"a": values})) as run:
        rows = rows_of(run, "/a")
        assert len(rows) == 1000
        assert rows.nbytes == values.nbytes
        assert np.array_equal(rows[:], values)
        assert np.array_equal(rows[10:20], values[10:20])
        assert rows[5:5].shape == (0, 3, 2)
        order = np.random.default_rng(1).permutation(1000)[:77]
        assert np.array_equal(rows[order], values[order])
        assert rows[np.zeros(0, dtype=np.int64)].shape == (0, 3, 2)


def test_rows_written_in_pieces_are_rounded_once(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    with create_run(tmp_path / "run.h5", force=False) as writer:
        rows = writer.rows("a", values.shape, np.float16)
        for start in range(0, 50, 7):
            rows.append(values[start : start + 7])
        writer.attributes("provenance", {"run_id": "r1"})
    with RunFile(tmp_path / "run.h5") as run:
        assert np.array_equal(rows_of(run, "/a")[:], values.astype(np.float16))


def test_a_dataset_with_missing_rows_is_never_published(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="/a has 2 of its rows"),
        create_run(tmp_path / "a.h5", force=False) as writer,
    ):
        writer.rows("a", (3,), np.float32).append(np.zeros(2))
    assert not list(tmp_path.iterdir())


def test_the_file_holds_what_was_trained(run_path: Path) -> None:
    config = small_config(store="maps", **{"training.prefix": "recompute"})  # which "auto" is, crops being drawn anew
    data = load_dataset("digits", holdout=0.1)
    net = LayerwiseNetwork(config.network, (1, 8, 8), 10, data.mean, data.std, config.seed)
    epochs = train_network(net, data, config)
    with RunFile(run_path) as run:
        assert run.config == config
        assert run.dataset["name"] == "digits"
        assert run.dataset["classes"] == [str(c) for c in range(10)]
        assert run.dataset["normalisation"] == {"mean": list(data.mean), "std": list(data.std)}
        assert run.depths == [0, 1, 2]
        assert [run.depth_shape(j) for j in run.depths] == net.shapes
        assert [run.depth_module(j) for j in run.depths] == ["input", "blocks.1", "blocks.2"]
        assert run.splits == ["train", "validation", "test"]
        for name, split in data.splits.items():
            assert np.array_equal(run.labels(name), split.label)
            assert np.array_equal(run.indices(name), split.index)
            images = run.images(name)
            assert images is not None
            assert np.array_equal(images[:], split.images)
            assert run.dataset["fingerprint"][name] == split.fingerprint()
        for kind, modules in (("blocks", net.blocks), ("auxiliaries", net.auxiliaries)):
            for j, module in enumerate(modules, start=1):
                stored = run.weights(kind, j)
                assert stored is not None
                assert stored.keys() == module.state_dict().keys()
                assert all(np.array_equal(stored[n].ravel(), t.numpy().ravel()) for n, t in module.state_dict().items())
        history = run.history()
        assert history is not None
        assert history["train_loss"].tolist() == [e.train.loss for e in epochs]
        assert history["validation_accuracy"].tolist() == [e.validation.accuracy for e in epochs if e.validation]
        assert run.scores(2)["validation_accuracy"] == history["validation_accuracy"][-1]
        assert set(run.provenance) >= {"run_id", "created", "software", "seconds", "threads", "device", "command"}


def test_depths_splits_and_kinds_that_are_not_there_are_refused(run_path: Path) -> None:
    with RunFile(run_path) as run:
        for read in (run.pooled, run.maps, run.class_token, run.outputs):
            with pytest.raises(UsageError, match=r"^unknown depth '9'. Choices: 0, 1, 2"):
                read(9, "test")
            with pytest.raises(UsageError, match="^unknown split 'tests'. Did you mean 'test'"):
                read(1, "tests")
        for told in (run.depth_shape, run.depth_module, run.depth_form, run.scores, run.pruning):
            with pytest.raises(UsageError, match="^unknown depth '9'"):
                told(9)
        with pytest.raises(UsageError, match="unknown split 'tests'"):
            run.images("tests")
        with pytest.raises(UsageError, match="unknown kind of weights 'block'. Did you mean 'blocks'"):
            run.weights("block", 1)


def test_anyone_with_h5py_can_read_it(run_path: Path) -> None:
    with h5py.File(run_path) as file:
        assert file.attrs["format"] == "layerwise-run"
        assert file.attrs["format_version"] == 1
        assert bool(file.attrs["complete"])
        assert json.loads(file.attrs["config"])["network"]["k"] == 2
        pooled, maps = file["depths/02/train/pooled"], file["depths/02/train/maps"]
        assert pooled.shape == (len(file["samples/train/label"]), 6, 2, 2)
        assert maps.shape[1:] == tuple(file["depths/02"].attrs["shape"]) == (6, 8, 8)
        assert file["history"].dtype.names[:2] == ("block", "epoch")
        assert not any(np.asarray(file[n]).dtype == object for n in ("history", "manifest"))


def test_large_datasets_are_contiguous_and_aligned(run_path: Path) -> None:
    seen = 0
    with h5py.File(run_path) as file:
        for path in (
            f"depths/{j:02d}/{s}/{kind}" for j in range(3) for s in ("train", "test") for kind in ("pooled", "maps")
        ):
            dataset = file[path]
            assert dataset.chunks is None
            if dataset.nbytes >= ALIGNMENT:
                assert dataset.id.get_offset() % ALIGNMENT == 0
                seen += 1
    assert seen >= 8


def test_a_chunked_and_compressed_dataset_of_another_writer_is_read_too(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(100, 3)).astype("<f4")
    with create_run(tmp_path / "run.h5", force=False) as writer:
        dataset = writer._file.create_dataset("a", shape=values.shape, dtype="<f4", chunks=(8, 3), compression="gzip")
        writer.writers["/a"] = type(writer.rows("b", (0,), "<f4"))(dataset)
        writer.writers["/a"].append(values)
        writer.attributes("provenance", {"run_id": "r1"})
    with RunFile(tmp_path / "run.h5") as run:
        assert np.array_equal(rows_of(run, "/a")[:], values)
        assert np.array_equal(rows_of(run, "/a")[np.array([50, 3])], values[[50, 3]])


def test_two_runs_of_one_configuration_share_the_content_digest_and_nothing_else_does(tmp_path: Path) -> None:
    first, again = (make_run(tmp_path / f"{name}.h5") for name in ("first", "again"))
    other = make_run(tmp_path / "other.h5", seed=1)
    with RunFile(first) as a, RunFile(again) as b, RunFile(other) as c:
        assert a.content_digest == b.content_digest != c.content_digest
        assert len({a.run_id, b.run_id, c.run_id}) == 3


def test_verify_names_every_dataset_of_an_intact_file(run_path: Path) -> None:
    with RunFile(run_path) as run:
        assert set(run.verify()) == set(run.storage())
    assert run_id(run_path)


@pytest.mark.parametrize("path", ["/depths/02/train/maps", "/samples/test/label", "/blocks/01/conv.weight", "/history"])
def test_a_flipped_bit_is_found_before_it_is_used(own_run: Path, path: str) -> None:
    with h5py.File(own_run) as file:
        offset = file[path].id.get_offset() + file[path].nbytes - 1
    data = bytearray(own_run.read_bytes())
    data[offset] ^= 1
    own_run.write_bytes(data)
    with RunFile(own_run) as run:
        with pytest.raises(UserError, match=rf"is damaged: rows \d+ to \d+ of {path} are not what was written"):
            rows_of(run, path)[:]
        with pytest.raises(UserError, match=f"of {path} are not what was written"):
            list(run.verify())


def test_damage_in_one_dataset_leaves_the_others_readable(own_run: Path) -> None:
    with h5py.File(own_run) as file:
        offset = file["depths/01/train/maps"].id.get_offset()
    data = bytearray(own_run.read_bytes())
    data[offset] ^= 1
    own_run.write_bytes(data)
    with RunFile(own_run) as run:
        assert len(rows_of(run, "/depths/02/train/maps")[:])


def test_damage_anywhere_is_an_error_and_never_another_number(own_run: Path) -> None:
    """Flip one byte at many places: either nothing that a reader sees changes, or it is a UserError."""
    intact = own_run.read_bytes()

    def content() -> list[bytes]:
        with RunFile(own_run) as run:
            list(run.verify())
            return [rows_of(run, path)[:].tobytes() for path in run.storage()]

    expected = content()
    found = 0
    for offset in np.random.default_rng(0).integers(0, len(intact), 60).tolist() + list(range(0, 96, 8)):
        data = bytearray(intact)
        data[offset] ^= 0xFF
        own_run.write_bytes(data)
        try:
            assert content() == expected
        except UserError:
            found += 1
    assert found > 30


@pytest.mark.parametrize("keep", [0.001, 0.3, 0.9, 0.9999])
def test_a_cut_file_is_refused(own_run: Path, keep: float) -> None:
    data = own_run.read_bytes()
    own_run.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(UserError, match=r"run.h5 is HDF5, but cannot be opened: it was cut short or damaged .*again"):
        RunFile(own_run)


def test_a_file_cut_while_it_is_read_is_noticed(own_run: Path) -> None:
    with RunFile(own_run) as run:
        own_run.write_bytes(own_run.read_bytes()[:5000])
        with pytest.raises(UserError, match="ends before /depths/02/train/maps does: it was cut short"):
            rows_of(run, "/depths/02/train/maps")[:]


def edit(path: Path, name: str, value: object) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value


def test_a_file_of_a_later_version_asks_for_newer_software(own_run: Path) -> None:
    edit(own_run, "format_version", 2)
    with pytest.raises(UserError, match="has format version 2; this software reads up to 1. Install a newer one"):
        RunFile(own_run)


def test_a_file_without_its_mark_is_incomplete(own_run: Path) -> None:
    with h5py.File(own_run, "r+") as file:
        del file.attrs["complete"]
    with pytest.raises(UserError, match="run.h5 is incomplete: its writer was stopped. Make the run again"):
        RunFile(own_run)


def test_changed_metadata_are_found_on_opening(own_run: Path) -> None:
    edit(own_run, "config", "{}")
    with pytest.raises(UserError, match="is damaged: / is not what was written"):
        RunFile(own_run)


def test_a_missing_dataset_is_found_on_opening(own_run: Path) -> None:
    with h5py.File(own_run, "r+") as file:
        del file["depths/01/train/maps"]
    with pytest.raises(UserError, match="is damaged: /depths/01/train/maps is not what was written"):
        RunFile(own_run)


@pytest.mark.parametrize(("name", "what"), [("manifest_digest", "manifest"), ("content_digest", "content digest")])
def test_a_changed_digest_is_found_on_opening(own_run: Path, name: str, what: str) -> None:
    edit(own_run, name, "0" * 64)
    with pytest.raises(UserError, match=f"is damaged: its {what} is not what was written"):
        RunFile(own_run)


def test_a_missing_manifest_is_found_on_opening(own_run: Path) -> None:
    with h5py.File(own_run, "r+") as file:
        del file["manifest"]
    with pytest.raises(UserError, match=r"is damaged: its structure cannot be read \(KeyError\)"):
        RunFile(own_run)


def test_what_is_no_run_is_refused_by_what_it_is(tmp_path: Path) -> None:
    text = tmp_path / "notes.h5"
    text.write_text("not HDF5")
    with pytest.raises(UserError, match="notes.h5 is no run file: it is not HDF5"):
        RunFile(text)
    with pytest.raises(UserError, match="missing.h5 does not exist; expected a run file, as `layerwise-train"):
        RunFile(tmp_path / "missing.h5")
    with pytest.raises(UserError, match="is a folder; expected a run file"):
        RunFile(tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(UserError, match="other.h5 is HDF5, but no run file: expected the root attribute format"):
        RunFile(tmp_path / "other.h5")


def test_a_file_closed_to_reading_says_so(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError

    monkeypatch.setattr(h5py, "File", refuse)  # root may read anything, so it is pretended
    with pytest.raises(UserError, match="run.h5 is closed to reading"):
        RunFile(own_run)


def test_the_archived_file_of_version_1_is_read_by_every_later_version(tmp_path: Path) -> None:
    path = Path(shutil.copy(GOLDEN, tmp_path / "run.h5"))
    with RunFile(path) as run:
        assert run.content_digest == "b2f71363b1d80b443bc258d212e1b3f5a222a381c5860c5df35acb5e7b419b50"
        assert set(run.verify()) == set(run.storage())
        assert run.config is not None
        assert (run.config.network.depth, run.config.network.k, run.depths) == (2, 2, [0, 1, 2])
        maps = run.maps(2, "test")
        assert maps is not None
        assert maps[:3].astype(np.float64).sum() == pytest.approx(90.27847576141357)
        assert "depths 0..2" in repr(run)


def test_an_open_run_keeps_reading_its_own_rows_when_another_takes_its_name(own_run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other.h5", store="maps", seed=1)
    with RunFile(own_run) as run:
        before = rows_of(run, "/depths/02/test/maps")[:]
        other.replace(own_run)
        assert np.array_equal(rows_of(run, "/depths/02/test/maps")[:], before)
        assert np.array_equal(rows_of(run, "/depths/02/validation/maps")[:].shape, (143, 6, 8, 8))


def test_a_file_replaced_while_it_is_opened_is_noticed(
    own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, opened = make_run(tmp_path / "other.h5"), h5py.File

    def swap(path: Path, mode: str) -> h5py.File:
        file = opened(path, mode)
        other.replace(path)
        return file

    monkeypatch.setattr(h5py, "File", swap)
    with pytest.raises(UserError, match="run.h5 was replaced while it was being opened. Run the command again"):
        RunFile(own_run)


def test_a_file_that_tells_nothing_of_its_making_but_its_run_id_can_be_shown(tmp_path: Path) -> None:
    about = {"name": "x", "fingerprint": {}, "classes": ["a", "b"], "normalisation": {"mean": [0.5], "std": [1.0]}}
    with create_run(tmp_path / "run.h5", force=False) as writer:
        writer.attributes("/", {"dataset": json.dumps(about)})
        writer.attributes("depths/00", {"module": "input", "shape": np.array([1, 4, 4])})
        for split in ("train", "test"):
            writer.array(f"samples/{split}/label", np.array([0, 1]))
            writer.array(f"samples/{split}/index", np.array([0, 1]))
            writer.array(f"depths/00/{split}/pooled", np.zeros((2, 1, 2, 2), np.float16))
        writer.attributes("provenance", {"run_id": "r1"})
    with RunFile(tmp_path / "run.h5") as run:
        text = "\n".join(describe_run(run))
    assert "made            at an unknown time by layerwise ?" in text


def test_what_is_stored_stands_in_its_column(tmp_path: Path) -> None:
    about = {"name": "x", "fingerprint": {}, "classes": ["a", "b"], "normalisation": {"mean": [0.5], "std": [1.0]}}
    with create_run(tmp_path / "run.h5", force=False) as writer:
        writer.attributes("/", {"dataset": json.dumps(about)})
        writer.attributes("depths/00", {"module": "input", "shape": np.array([1, 4, 4])})
        for split in ("train", "test"):
            writer.array(f"samples/{split}/label", np.array([0, 1]))
            writer.array(f"samples/{split}/index", np.array([0, 1]))
            for name, shape in (("pooled", (2, 1, 2, 2)), ("maps", (2, 1, 4, 4)), ("class_token", (2, 1))):
                writer.array(f"depths/00/{split}/{name}", np.zeros(shape, np.float16))
        writer.attributes("provenance", {"run_id": "r1"})
    with RunFile(tmp_path / "run.h5") as run:
        head, line = list(describe_run(run))[-2:]
    assert "  pooled+maps+class  float16  " in line
    assert line.index("float16") == head.index("type") and len(head) <= 80


def test_a_closed_run_says_that_it_was_closed(run_path: Path) -> None:
    run = RunFile(run_path)
    run.close()
    for read in (lambda: run.labels("test"), lambda: run.pooled(1, "test"), lambda: run.depths, lambda: run.scores(1)):
        with pytest.raises(UserError, match=r"run.h5 was closed, so nothing of it .* any more. Open it again"):
            read()
    assert repr(run).endswith("closed)") and "closed" in run._repr_html_()
