"""Saved weights: every value arrives, wrappers are opened, what does not fit is named, and no code is run."""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_networks import SmallNet
from torch import nn

from layerwise.errors import UserError
from layerwise.extraction.models.weights import Reading, load_weights


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def other_net() -> SmallNet:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = SmallNet()
        nn.init.normal_(net.norm.running_mean)
        return net


def wrapped(kind: str, state: dict[str, Any]) -> Any:
    match kind:
        case "bare":
            return state
        case "DataParallel":
            return {f"module.{name}": value for name, value in state.items()}
        case "Lightning":
            return {"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 3}
        case "compiled, parallel":
            return {"model": {f"_orig_mod.module.{name}": value for name, value in state.items()}}
        case "averaged":
            return torch.optim.swa_utils.AveragedModel(other_net()).state_dict()
        case "profiled":
            counters = dict.fromkeys(("total_ops", "conv1.total_ops", "conv1.total_params"), torch.zeros(1))
            return {**state, **counters}
        case "a part compiled":
            return {name.replace("norm.", "norm._orig_mod."): value for name, value in state.items()}
        case "a part parallel":
            return {name.replace("conv2.", "conv2.module."): value for name, value in state.items()}
        case "any prefix":
            return {f"backbone.net.{name}": value for name, value in state.items()}
        case "any name":
            return {"net": state, "acc": 90.0, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}}
        case "nested":
            return {"checkpoint": {"network": state}}
        case "in half":
            return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    return {kind: state, "optimizer": {"lr": 0.1}}


KINDS = [
    "bare", "state_dict", "model", "model_state_dict", "DataParallel", "Lightning", "compiled, parallel", "averaged",
    "profiled", "a part compiled", "a part parallel", "any prefix", "any name", "nested", "in half",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_and_buffer_arrives(kind: str, tmp_path: Path) -> None:
    net, other = SmallNet(), other_net()
    load_weights(net, saved(tmp_path / "w.pt", wrapped(kind, other.state_dict())))
    for name, value in other.state_dict().items():
        expected = value.half().float() if kind == "in half" and value.is_floating_point() else value
        assert torch.equal(net.state_dict()[name], expected), name


@pytest.mark.parametrize("kind", ["bare", "DataParallel", "averaged"])
def test_weights_arrive_in_a_network_that_is_wrapped_itself(kind: str, tmp_path: Path) -> None:
    net, other = SmallNet(), other_net()
    load_weights(nn.DataParallel(net), saved(tmp_path / "w.pt", wrapped(kind, other.state_dict())))
    assert torch.equal(net.conv2.weight, other.conv2.weight)


def test_what_is_left_out_or_not_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    state = other_net().state_dict()
    load_weights(SmallNet(), saved(tmp_path / "w.pt", wrapped("averaged", state)))
    assert "left out of the weights, being counters: n_averaged" in caplog.text
    load_weights(SmallNet(), saved(tmp_path / "w.pt", {"model": state, "model_ema": SmallNet().state_dict()}))
    assert "the weights stand under 'model' in" in caplog.text
    assert "(not read: model_ema; --weights-key model_ema would read it)" in caplog.text
    caplog.clear()
    within = {"model": state, "ema": {"model": SmallNet().state_dict(), "decay": 0.99}, "optimizer": {"state": {}}}
    load_weights(SmallNet(), saved(tmp_path / "w.pt", within))
    assert "(not read: ema.model; --weights-key ema.model would read it)" in caplog.text
    del within["model"]
    within["last"] = {"model": state}
    with pytest.raises(UserError, match=r"2 state dicts, under ema.model, last.model, and one is needed. Say which:"):
        load_weights(SmallNet(), saved(tmp_path / "w.pt", within))


def test_one_number_of_another_name_is_no_counter(tmp_path: Path) -> None:
    state = {**SmallNet().state_dict(), "logit_scale": torch.zeros(1)}
    with pytest.raises(UserError, match="the network has no logit_scale. Save them without logit_scale."):
        load_weights(SmallNet(), saved(tmp_path / "w.pt", state))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.to(torch.int8), r"conv2.weight has integers \(torch.int8\), but real numbers are needed"),
        (lambda v: v > 0, r"conv2.weight has truth values \(torch.bool\), but"),
        (lambda v: v.to(torch.complex64), r"conv2.weight has complex numbers \(torch.complex64\), but"),
        (lambda v: v.to(torch.float8_e4m3fn), r"conv2.weight has quantised numbers \(torch.float8_e4m3fn\), but"),
        (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), r"conv2.weight has quantised numbers"),
        (lambda v: v.to_sparse(), r"conv2.weight has sparse values \(torch.float32\), but"),
        (lambda v: v.to("meta"), r"conv2.weight has no values \(device meta\)"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_numbers_that_are_no_weights_are_named_and_nothing_is_loaded(change: Any, message: str, tmp_path: Path) -> None:
    state = other_net().state_dict()
    state["conv2.weight"] = change(state["conv2.weight"])
    net = SmallNet()
    before = net.conv1.weight.clone()
    with pytest.raises(UserError, match=message):
        load_weights(net, saved(tmp_path / "w.pt", state))
    assert torch.equal(net.conv1.weight, before)


def test_safetensors(tmp_path: Path) -> None:
    import safetensors.torch as safetensors

    net, other = SmallNet(), other_net()
    safetensors.save_file(other.state_dict(), tmp_path / "w.safetensors")
    load_weights(net, tmp_path / "w.safetensors")
    assert torch.equal(net.conv2.weight, other.conv2.weight)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="bad.safetensors cannot be read as safetensors"):
        load_weights(net, tmp_path / "bad.safetensors")
    saved(tmp_path / "torch.safetensors", other.state_dict())
    with pytest.raises(UserError, match="is a file of torch.save and no safetensors; give it a name that ends in .pt"):
        load_weights(net, tmp_path / "torch.safetensors")


def test_safetensors_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    (tmp_path / "w.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"needs the package safetensors.*pip install '.\[safetensors\]'"):
        load_weights(SmallNet(), tmp_path / "w.safetensors")


def test_counters_that_old_files_lack_are_not_asked_for(tmp_path: Path) -> None:
    state = {name: value for name, value in other_net().state_dict().items() if "num_batches" not in name}
    load_weights(SmallNet(), saved(tmp_path / "w.pt", state))


class Hostile:
    """Unpickling it makes a folder, as a stand-in for worse."""

    def __init__(self, victim: str):
        self.victim = victim

    def __reduce__(self) -> Any:
        return os.mkdir, (self.victim,)


@pytest.mark.parametrize("how", ["torch.save", "inside", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(how: str, tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "w.pt"
    hostile = Hostile(str(victim))
    if how == "pickle":
        path.write_bytes(pickle.dumps(hostile))
    else:
        torch.save(hostile if how == "torch.save" else {"state_dict": SmallNet().state_dict(), "x": hostile}, path)
    net = SmallNet()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_weights(net, path)
    assert not victim.exists()
    assert str(error.value).startswith(f"{path} is refused, and nothing in it was run: it is no plain state dict")
    assert ("mkdir" in str(error.value)) == (how != "pickle") and "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    # The pickle does run where nobody looks: the test would notice.
    if how == "pickle":
        pickle.loads(path.read_bytes())
        assert victim.exists()


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"is refused, and nothing in it was run.*SmallNet.*torch.save\(model.state_dict"
    ):
        load_weights(SmallNet(), saved(tmp_path / "w.pt", SmallNet()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("fc.bias"), "are not this network's: it lacks fc.bias."),
        (lambda s: s.update(extra=torch.zeros(1)), "are not this network's: the network has no extra."),
        (
            lambda s: s.update({"fc.weight": torch.zeros(3, 6)}),
            r"shapes differ: fc.weight \(3x6, the network's is 10x6\).*--model-arg num_classes=3",
        ),
        (lambda s: [s.pop(name) for name in list(s)[:6]], "it lacks conv1.weight, conv1.bias, norm.weight and 3 more"),
    ],
)
def test_what_does_not_fit_is_named(change: Any, message: str, tmp_path: Path) -> None:
    state = SmallNet().state_dict()
    change(state)
    with pytest.raises(UserError, match=message):
        load_weights(SmallNet(), saved(tmp_path / "w.pt", dict(state)))


def without_head(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without_head,
            "it lacks fc.weight, fc.bias. They come without fc: .* no probe needs, give --allow-missing fc",
        ),
        (
            lambda s: {**without_head(s), "projector.0.weight": torch.zeros(2, 2)},
            "Save them without projector. They come without fc: where that is the classifier",
        ),
        (
            lambda s: {**{f"encoder_q.{k}": v for k, v in s.items()}, "queue": torch.zeros(2, 2)},
            r"All that the network has stands below 'encoder_q.' in the file: give --strip-prefix encoder_q.$",
        ),
        (
            lambda s: {**s, "conv2.1.weight": torch.zeros(2, 2), "conv2.1.bias": torch.zeros(2)},
            "the network has no conv2.1.weight, conv2.1.bias. Name the network they were saved of",
        ),
        (
            lambda s: {**s, "conv1.weight": torch.zeros(4, 3, 3, 3)},
            r"conv1.weight \(4x3x3x3, the network's is 4x1x3x3\). Name the network they were saved of",
        ),
        (lambda s: {"0.w": torch.zeros(1, 1), "1.w": torch.zeros(1)}, "Name the network they were saved of"),
    ],
)
def test_weights_one_step_from_fitting_are_answered_with_the_step(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_weights(SmallNet(), saved(tmp_path / "w.pt", change(SmallNet().state_dict())))


@pytest.mark.parametrize(
    ("head", "name", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "w.pt", "is a pointer of Git LFS.*git lfs pull"),
        (b"<!DOCTYPE html><html><title>Sign in</title>", "w.pt", "is text and no weights .it begins '<!DOCTYPE html>"),
        (b'{"metadata": {"total_size": 3}}', "w.pt", 'is text and no weights .it begins \'{"metadata"'),
        (b"\x89HDF\r\n\x1a\n", "w.h5", "is an HDF5 file"),
        (b'\x10\0\0\0\0\0\0\0{"a": 1}        ', "w.pt", "is a safetensors file; give it a name that ends in"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(head: bytes, name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(head)
    with pytest.raises(UserError, match=message):
        load_weights(SmallNet(), tmp_path / name)


def test_a_torchscript_archive_is_called_what_it_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("net/constants.pkl", b"")
    with pytest.raises(UserError, match=r"is a TorchScript archive.*torch.jit.load\(OLD\).state_dict\(\)"):
        load_weights(SmallNet(), tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state": {}, "param_groups": []}, "holds the state of an optimizer, but a state dict"),
        (
            {"teacher": {"w": torch.zeros(1)}, "student": {"w": torch.zeros(1)}},
            r"holds 2 state dicts, under teacher, student, and one is needed. Say which: --weights-key teacher.$",
        ),
        (
            {"w": torch.zeros(1), "epoch": 3},
            r"a state dict with more than tensors in it: epoch \(int\). Save it without",
        ),
        ([1, 2], "holds a list, but a state dict"),
        ({}, "holds an empty dictionary, but a state dict"),
        ({"weights": 1, "epoch": 2}, "holds a dictionary with weights, epoch, but a state dict .* under state_dict"),
        (torch.zeros(2), "holds a Tensor, but a state dict"),
    ],
)
def test_what_holds_no_weights_is_named(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_weights(SmallNet(), saved(tmp_path / "w.pt", content))


# Opcodes that no torch.save writes in this order: a call without its arguments, and one without anything to call.
@pytest.mark.parametrize(
    ("opcodes", "kind"), [(b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "TypeError"), (b"R.", "IndexError")]
)
def test_a_damaged_file_that_misleads_the_safe_reader_is_named(opcodes: bytes, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    whole = zipfile.ZipFile(saved(tmp_path / "whole.pt", SmallNet().state_dict()))
    with zipfile.ZipFile(path, "w") as damaged:
        for name in whole.namelist():
            damaged.writestr(name, b"\x80\x02" + opcodes if name.endswith("data.pkl") else whole.read(name))
    with pytest.raises(UserError, match=rf"w.pt cannot be read as weights \({kind}\).*Take an intact copy"):
        load_weights(SmallNet(), path)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with pytest.raises(UserError, match="w.pt does not exist; expected a file of weights"):
        load_weights(SmallNet(), path)
    with pytest.raises(UserError, match="is a folder; expected a file of weights"):
        load_weights(SmallNet(), tmp_path)
    whole = saved(path, SmallNet().state_dict()).read_bytes()
    for damaged in (b"", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"w.pt cannot be read as weights \(.*Take an intact copy"):
            load_weights(SmallNet(), path)


def test_a_user_says_where_the_weights_stand_and_what_their_names_begin_with(tmp_path: Path) -> None:
    net, state = SmallNet(), SmallNet().state_dict()
    below = {f"backbone.{name}": value for name, value in without_head(state).items()} | {"queue": torch.zeros(2)}
    path = saved(tmp_path / "w.pt", {"ema.v2": {"model": below}, "student": below})
    reading = Reading(key="ema.v2.model", strip_prefix="backbone", allow_missing=("fc.*",))
    assert load_weights(net, path, reading) == ["fc.weight", "fc.bias"]
    assert torch.equal(net.conv2.weight, state["conv2.weight"])
    for wrong, message in (
        (Reading(key="ema.v2.net"), "w.pt has nothing under 'net', as --weights-key says; what is there has model.$"),
        (Reading(key="teacher"), "w.pt has nothing under 'teacher', as .* what is there has ema.v2, student.$"),
        (Reading(key="student", strip_prefix="net"), "begins with 'net.', as --strip-prefix .* with backbone, queue.$"),
        (replace(reading, allow_missing=()), "it lacks fc.weight, fc.bias. They come without fc"),
    ):
        with pytest.raises(UserError, match=message):
            load_weights(SmallNet(), path, wrong)
