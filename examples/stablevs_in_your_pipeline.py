"""StableVS in a pipeline of your own, chosen by measurement: `python examples/stablevs_in_your_pipeline.py [FOLDER]`.

FOLDER holds a pipeline that diffusers loads. Without it a tiny Stable Diffusion 3 is trained first, which takes half a
minute and no network: its pictures are poor, what is done with them is the same.
"""

import sys
import tempfile
from pathlib import Path

import torch

from stablevelocity.pretrained.tiny import TINY_FAMILIES
from stablevelocity.pretrained.tiny_training import train_tiny
from stablevelocity.study.pretrained_settings import TinyTraining
from stablevelocity.tuning import recommend, record
from stablevelocity.tuning.pipelines import open_model

PROMPTS = ["a red two", "a five", "three nines", "a one and a six"]


def main() -> None:
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
    else:
        folder = Path(tempfile.mkdtemp()) / "tiny-sd3"
        budget = TinyTraining(scenes=1024, autoencoder_steps=100, steps=200)
        train_tiny(TINY_FAMILIES["sd35"], budget, folder)
    model = open_model(str(folder))
    pipeline = model.pipeline
    pipeline.set_progress_bar_config(disable=True)

    def draw(prompt: str, seed: int, steps: int):
        # Your own call of your own pipeline. This one has no text encoders, so it is given embeddings.
        arguments = {**model.family.text_arguments([prompt], False), **model.arguments} if model.family else {}
        generator = torch.Generator().manual_seed(seed)
        return pipeline(**arguments, num_inference_steps=steps, generator=generator, output_type="latent").images

    # 1. Record some long runs with the pipeline's own scheduler.
    runs = []
    for seed, prompt in enumerate(PROMPTS[:3]):
        with record(pipeline.scheduler) as recording:
            draw(prompt, seed, 30)
        runs.append(recording.trajectory())

    # 2. Where does the velocity stop turning, and where should 12 steps stand?
    recommendation = recommend(runs, calls=12)
    print("sigma       ", *(f"{sigma:5.2f}" for sigma in runs[0].sigmas[:-1:3]))
    print("turning, deg", *(f"{57.3 * angle:5.1f}" for angle in recommendation.turning[::3]))
    xi, low_steps = recommendation.xi, recommendation.low_steps
    print(f"xi {xi:.3f} and {low_steps} low steps: {recommendation.expected_tuned:.1f} dB expected to the long run")
    shown = " ".join(f"{sigma:.2f}" for sigma in recommendation.grid)
    print(f"free grid: {shown} -> {recommendation.expected_grid:.1f} dB expected")

    # 3. Put the grid into the pipeline, and see on a picture that the recommendation has not seen.
    stock = pipeline.scheduler
    long = draw(PROMPTS[3], 99, 30)
    arms = {
        "base": {"enabled": False},
        "tuned xi": {"xi": xi, "low_steps": low_steps},
        "free grid": {"xi": 0.0, "grid": list(recommendation.grid)},
    }
    for name, options in arms.items():
        pipeline.scheduler = model.stablevs.from_config(stock.config, **options)
        short = draw(PROMPTS[3], 99, 12 if name == "base" else 30)
        error = (short - long).square().mean().sqrt() / long.square().mean().sqrt()
        print(f"{name}: {len(pipeline.scheduler.timesteps)} calls, {100 * error:.2f} % from the long run")
    print("One picture decides nothing: `stablevelocity tune FOLDER --prompts FILE --output DIR` compares on several.")


if __name__ == "__main__":
    main()
