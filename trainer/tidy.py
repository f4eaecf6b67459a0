"""What a training leaves in its process, taken away: the next one finds torch as a fresh process has it."""

import gc

import torch

FRESH_SEED = torch.default_generator.initial_seed()  # trainings draw from generators of their own
LEFT_BYTES = 32 << 20  # on a device: workspaces that its libraries keep for good


def tidy_torch() -> str | None:
    """Free device memory and put torch's global switches and generators back to what they are at the start.

    Returns:
        Why this process should not be used for another training: something still holds a device's memory. None
        where it may.
    """
    gc.collect()
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    torch.use_deterministic_algorithms(False)
    torch.set_anomaly_enabled(False)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = False
    torch.manual_seed(FRESH_SEED)
    held = 0
    for device in range(torch.cuda.device_count()):
        if torch.cuda.memory_reserved(device):  # 0 for one that was never used, which stays so
            with torch.cuda.device(device):
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            held += torch.cuda.memory_allocated(device)
    return f"{held >> 20} MiB of a GPU's memory were not given back" if held > LEFT_BYTES else None
