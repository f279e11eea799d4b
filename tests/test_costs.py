"""What a job cost: memory, and seconds on a card."""

import torch

from iadd.pipeline.costs import costs_of, gpu_seconds


def test_seconds_on_a_card_are_those_of_work_that_was_done_there() -> None:
    assert gpu_seconds("NVIDIA H100", 10.0, 2.5) == 12.5
    assert gpu_seconds("cpu", 10.0, 2.5) == 0.0
    assert gpu_seconds(None, 10.0, 2.5) is None
    assert gpu_seconds("NVIDIA H100", 10.0, None) is None


def test_the_peak_of_memory_is_in_bytes_and_never_falls() -> None:
    before = costs_of(torch.device("cpu"))
    block = torch.ones(16 << 20)  # 64 MiB
    after = costs_of(torch.device("cpu"))
    del block
    assert before["device"] == "cpu"
    assert 2**26 < before["host_peak_bytes"] <= after["host_peak_bytes"] < 2**36
