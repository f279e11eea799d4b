"""What tests of several rooms use."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def restored_threads() -> Iterator[None]:
    """Lets a test set the number of threads."""
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)
