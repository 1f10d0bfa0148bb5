"""Reading a model needs the memory of the model and little more, whatever its files."""

import subprocess
import sys
from pathlib import Path

import pytest
from test_parity_hf import hf_model

from models.config import ModelConfig

ROOT = Path(__file__).parent.parent
MEASURE = """
import sys
from pathlib import Path
import torch
from models.inference import InferenceLlama
from models.storage.stored import read
from models.storage.write_dcp import write_dcp

def status(key):
    line = next(x for x in Path("/proc/self/status").read_text().split("\\n") if x.startswith(key))
    return int(line.split()[1]) * 1024

folder, out = map(Path, sys.argv[2:])
torch.set_num_threads(1)
torch.randn(64, 64) @ torch.randn(64, 64)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
stored = read(folder)
if sys.argv[1] == "dcp":
    write_dcp(stored.weights, out, dtype=None)
else:
    model = InferenceLlama(stored.size, stored.weights, dtype=torch.float32, device=torch.device("cpu"))
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak of resident memory")
@pytest.mark.parametrize("to", ["dcp", "inference"])
def test_peak_memory_is_the_model_and_a_shard(to: str, tmp_path: Path) -> None:
    size = ModelConfig(
        name="large", dim=512, n_layers=12, n_heads=8, n_kv_heads=4, ffn_dim=1792, vocab_size=8000, max_seq_len=64
    )
    folder = tmp_path / "hf"
    hf_model(size).save_pretrained(folder, max_shard_size="40MB")
    shards = [f.stat().st_size for f in folder.glob("*.safetensors")]
    assert len(shards) >= 4
    command = [sys.executable, "-c", MEASURE, to, str(folder), str(tmp_path / "out")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < sum(shards) + 1.3 * max(shards)
