"""These tests need a GPU; `make gpu-check` runs them where there is one, after the suite itself on CUDA tensors."""

import torch

collect_ignore_glob = [] if torch.cuda.is_available() else ["test_*.py"]
