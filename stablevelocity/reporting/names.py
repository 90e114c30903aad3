"""What solvers, metrics and methods are called in tables, figures and text: the one place for such labels."""

SOLVERS = {
    "euler": "Euler",
    "heun": "Heun",
    "euler_maruyama": "Euler-Maruyama",
    "dpm": "DPM-Solver++",
    "unipc": "UniPC",
}
METRICS = {
    "fid": "FID",
    "sfid": "sFID",
    "is": "IS",
    "precision": "Precision",
    "recall": "Recall",
    "accuracy": "Accuracy",
    "fid_infinity": "FID at infinite N",
    "fid_halves": "FID of halves",
    "fid_heldout": "FID to held-out images",
    "nearest_ratio": "Nearest train over nearest held-out image",
}
SIMILARITY = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "feature_distance": "Feature distance",
    "fid": "FID",
}
"""Measures of a sweep: image by image to the long run, and FID."""
OBJECTIVES = {"cfm": "CFM", "stf": "STF", "stablevm": "StableVM"}
GRIDS = {"none": "own grid", "stablevs": "StableVS", "control": "control"}
FAMILIES = {"sd35": "SD3.5", "flux": "Flux", "qwen-image": "Qwen-Image", "wan22": "Wan2.2"}
