"""Counts the GPUs of a site's machine through NVML (nvidia-ml-py). Where there are none it says so."""

from __future__ import annotations

from typing import Any

from sekisho.federation.report import Gpu, Inventory

_MAX_GPUS = 256


def inventory() -> Inventory:
    """What NVML sees now; `simulated` with the reason where there is nothing to see. Takes some milliseconds."""
    try:
        import pynvml  # noqa: PLC0415 - an extra: a machine without GPUs need not have it
    except ImportError:
        return Inventory(simulated=True, note="nvidia-ml-py is not installed (extra `nvidia`)")
    return read(pynvml)


def read(nvml: Any) -> Inventory:
    """`nvml` is the module pynvml, or what stands in for it in a test."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Inventory(simulated=True, note=f"NVML: {error}"[:200])
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(min(nvml.nvmlDeviceGetCount(), _MAX_GPUS))]
        gpus = tuple(_gpu(nvml, handle) for handle in handles)
        driver = _text(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError as error:
        return Inventory(simulated=True, note=f"NVML: {error}"[:200])
    finally:
        nvml.nvmlShutdown()
    if not gpus:
        return Inventory(simulated=True, note="NVML found no GPU", driver=driver)
    return Inventory(simulated=False, driver=driver, gpus=gpus)


def _gpu(nvml: Any, handle: Any) -> Gpu:
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        total, used = memory.total >> 20, memory.used >> 20
    except nvml.NVMLError:  # a MIG parent, or memory shared with the CPU, has no such number
        total = used = 0
    try:
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu
    except nvml.NVMLError:
        busy = 0
    return Gpu(
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory_mib=total,
        memory_used_mib=used,
        utilisation_percent=min(busy, 100),
    )


def _text(value: str | bytes) -> str:
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else value)[:200]
