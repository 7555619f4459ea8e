"""GPUs are counted or it is said that they were not."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from sekisho.assembly.site_inventory import inventory, read


class FakeNvml:
    """FAKE: stands in for pynvml with made-up GPUs; the names of its functions are checked against the real one."""

    NVMLError = pynvml.NVMLError

    def __init__(self, gpus: int, *, broken: str = "") -> None:
        self._gpus = gpus
        self._broken = broken
        self.open = 0

    def __getattribute__(self, name: str) -> object:
        if name.startswith("nvml"):
            assert callable(getattr(pynvml, name)), f"the real library has no {name}"
            if name == object.__getattribute__(self, "_broken"):
                return _fails
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self._gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "590.0"

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, _handle: int) -> bytes:  # noqa: N802
        return b"NVIDIA H200"

    def nvmlDeviceGetMemoryInfo(self, _handle: int) -> object:  # noqa: N802
        return SimpleNamespace(total=143_771 << 20, used=1 << 30)

    def nvmlDeviceGetUtilizationRates(self, _handle: int) -> object:  # noqa: N802
        return SimpleNamespace(gpu=37)


def _fails(*_arguments: object) -> None:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def test_gpus_are_counted() -> None:
    fake = FakeNvml(2)
    found = read(fake)
    assert not found.simulated
    assert found.driver == "590.0"
    assert [gpu.uuid for gpu in found.gpus] == ["GPU-0", "GPU-1"]
    assert found.gpus[0].name == "NVIDIA H200"
    assert (found.gpus[0].memory_mib, found.gpus[0].memory_used_mib) == (143_771, 1024)
    assert found.gpus[0].utilisation_percent == 37
    assert fake.open == 0


@pytest.mark.parametrize(
    "broken", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetName", "nvmlSystemGetDriverVersion"]
)
def test_a_library_that_fails_is_said_to(broken: str) -> None:
    fake = FakeNvml(1, broken=broken)
    found = read(fake)
    assert found.simulated
    assert "NVML" in found.note
    assert fake.open == 0


@pytest.mark.parametrize("broken", ["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUtilizationRates"])
def test_a_number_that_a_gpu_does_not_have_is_zero(broken: str) -> None:
    found = read(FakeNvml(1, broken=broken))
    assert not found.simulated
    assert len(found.gpus) == 1


def test_a_machine_without_gpus_says_so() -> None:
    assert read(FakeNvml(0)).simulated


def test_the_real_library_answers_or_says_why_not() -> None:
    found = inventory()
    assert found.gpus or (found.simulated and found.note)
