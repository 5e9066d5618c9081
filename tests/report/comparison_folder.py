"""The folder of a finished comparison, made by hand: 12 models, 2 endpoints, 3 horizons, the last beyond follow-up."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from history_file import VERSIONS, write_history
from matplotlib.image import imsave

from stsmm_core.run_folder import BLENDED, NETWORKS_FOLDER
from stsmm_core.survival.estimates import too_few_events

CONFIG = """
seed = 11

[data]
endpoints = ["os", "dm"]
modalities = ["image", "clinical"]

[imaging]
shape = [32, 32, 32]

[model]
image_encoder = "small_densenet"

[training]
epochs = 20

[blending]
interval = 2

[evaluation]
scheme = "{scheme}"
"""
SITE = "Hôpital <b>& Cie</b>"
RADIOMICS = "radiomics of T1 and T2 (200 features), 11 clinical variables"
MODELS = (
    ("mmnn_blending", "MMNN, gradient blending", "MRI, 11 clinical variables", "multimodal network", 0.74, "mmnn"),
    ("mmnn", "MMNN, no blending", "MRI, 11 clinical variables", "multimodal network", 0.71, None),
    ("densenet", "DenseNet-121", "MRI", "image network", 0.56, "densenet"),
    ("radiomics_clinical_elastic_net", "Radiomics + clinical, elastic net", RADIOMICS, "Cox, elastic net", 0.7, "net"),
    ("radiomics_clinical_rsf", "Radiomics + clinical, RSF", RADIOMICS, "random survival forest", 0.69, None),
    ("radiomics_rsf", "Radiomics, RSF", "radiomics of T1 and T2 (200 features)", "random survival forest", 0.55, "rad"),
    ("clinical_rsf", "Clinical, RSF", "11 clinical variables", "random survival forest", 0.68, "rsf"),
    ("clinical_cox", "Clinical, Cox", "11 clinical variables", "Cox regression", 0.7, None),
    ("clinical_ridge", "Clinical, ridge Cox", "11 clinical variables", "Cox, ridge penalty", 0.72, None),
    ("sarculator_rsf", "Sarculator variables, RSF", "4 clinical variables", "random survival forest", 0.64, None),
    ("sarculator_cox", "Sarculator variables, Cox", "4 clinical variables", "Cox regression", 0.67, "sarc"),
    ("volume", "Volume alone", "tumour volume", "none", 0.61, None),
)
PAPER = {
    "mmnn": {"os": [0.769, 0.126], "dm": [0.699, 0.092]},
    "densenet": {"os": [0.553, 0.081], "dm": [0.562, 0.068]},
    "net": {"os": [0.707, 0.095], "dm": [0.658, 0.085]},
    "rad": {"os": [0.532, 0.116], "dm": [0.541, 0.099]},
    "rsf": {"os": [0.655, 0.111], "dm": [0.639, 0.108]},
    "sarc": {"os": [0.614, 0.117], "dm": [0.631, 0.097]},
}
EVENTS = {"os": 26, "dm": 31}
HORIZONS = ("2", "5")
BEYOND = "fewer than 5 test patients were followed so long"
REASON = "no curve of survival: the volume is a score, not a model of risk"


def figure(rng: np.random.Generator, value: float, sd: float, *, n: int = 90, events: int = 26) -> dict[str, Any]:
    value, sd = float(value + 0.01 * rng.normal()), float(sd * rng.uniform(0.9, 1.1))
    return {"value": value, "sd": sd, "low": value - 1.96 * sd, "high": value + 1.96 * sd, "n": n, "events": events}


def nothing(reason: str, *, n: int = 90, events: int = 26) -> dict[str, Any]:
    return {"value": None, "sd": None, "low": None, "high": None, "n": n, "events": events, "reason": reason}


def estimates(rng: np.random.Generator, key: str, index: float, endpoint: str) -> dict[str, Any]:
    events = EVENTS[endpoint]
    ranked = index - (0.03 if endpoint == "dm" else 0)
    metrics = {
        "harrell_c": figure(rng, ranked, 0.05, events=events),
        "uno_c": figure(rng, ranked - 0.01, 0.055, events=events),
    }
    absolute = key != "volume"
    metrics["ibs"] = figure(rng, 0.17, 0.02, events=events) if absolute else nothing(REASON, events=events)
    metrics["ibs_null"] = figure(rng, 0.19, 0.015, events=events)
    for years in HORIZONS:
        by_then = events - 10 if years == "2" else events - 3
        metrics[f"auc_{years}"] = figure(rng, ranked + 0.02, 0.06, events=by_then)
        metrics[f"brier_null_{years}"] = figure(rng, 0.2, 0.02, events=by_then)
        for name, ideal, sd in (
            ("brier", 0.18, 0.02),
            ("ipa", 0.08, 0.07),
            ("oe", 1.05, 0.2),
            ("slope", 0.9, 0.25),
            ("ici", 0.06, 0.02),
            ("e50", 0.05, 0.02),
            ("e90", 0.12, 0.03),
        ):
            given = figure(rng, ideal, sd, events=by_then) if absolute else nothing(REASON, events=by_then)
            metrics[f"{name}_{years}"] = given
    for name in ("auc", "brier", "brier_null", "ipa", "oe", "slope", "ici", "e50", "e90"):
        metrics[f"{name}_10"] = nothing(BEYOND, events=events)
    return metrics


def curves(rng: np.random.Generator, index: float, key: str) -> dict[str, Any]:
    steps = np.linspace(0, 1, 50)
    power = max(0.05, (1 - index) / index)
    risk = np.linspace(0.05, 0.8, 40)
    groups = np.array([0.12, 0.25, 0.45, 0.7])
    observed = np.clip(groups + 0.05 * rng.normal(size=4), 0.02, 0.95)
    threshold = np.linspace(0.01, 0.9, 60)
    treat_all = 0.35 - 0.65 * threshold / (1 - threshold)
    curve: dict[str, Any] = {
        "roc": {"fpr": list(steps), "tpr": list(steps**power), "auc": float(1 / (power + 1))},
    }
    if key != "volume":
        curve["calibration"] = {
            "predicted": list(risk),
            "observed": list(np.clip(0.9 * risk + 0.03 + 0.03 * np.sin(6 * risk), 0, 1)),
            "groups": {
                "predicted": list(groups),
                "observed": list(observed),
                "low": list(np.clip(observed - 0.12, 0, 1)),
                "high": list(np.clip(observed + 0.14, 0, 1)),
            },
        }
        benefit = np.maximum(treat_all, 0) + 0.25 * (index - 0.5) * np.exp(-((threshold - 0.35) ** 2) / 0.04)
        curve["decision"] = {
            "threshold": list(threshold),
            "model": list(benefit),
            "all": list(treat_all),
            "none": [0.0] * len(threshold),
        }
    return curve


def column(name: str, patients: int) -> dict[str, Any]:
    numbers = {
        "age": (58.13, 14.02, 60.0, 47.0, 69.5),
        "size_cm": (9.21, 5.13, 8.2, 5.4, 12.1),
        "volume_cm3": (310.4, 402.9, 151.2, 48.8, 420.0),
    }
    levels = {
        "sex": {"F": 0.45, "M": 0.55},
        "grade": {"low": 0.2, "intermediate": 0.3, "high": 0.5},
        "location": {"axial": 0.2, "upper_extremity": 0.25, "lower_extremity": 0.55},
        "depth": {"superficial": 0.25, "deep": 0.75},
        "neoadjuvant_chemo": {"0": 0.7, "1": 0.3},
        "metastasis_at_presentation": {"0": 0.94, "1": 0.06},
        "radiotherapy": {"none": 0.3, "preoperative": 0.5, "postoperative": 0.2},
        "histology": {
            "leiomyosarcoma": 0.15,
            "myxofibrosarcoma": 0.2,
            "synovial_sarcoma": 0.1,
            "undifferentiated_pleomorphic_sarcoma": 0.35,
            "other": 0.2,
        },
    }
    variables: dict[str, Any] = {
        key: dict(zip(("n", "mean", "sd", "median", "q1", "q3"), (patients - 2, *values), strict=True))
        for key, values in numbers.items()
    }
    for key, shares in levels.items():
        counts = {level: int(share * patients) for level, share in shares.items()}
        variables[key] = {"n": sum(counts.values()), "levels": counts}
    return {
        "column": name,
        "patients": patients,
        "events": {"os": int(0.29 * patients), "dm": int(0.34 * patients)},
        "at_risk": {"os": patients, "dm": patients - patients // 20},
        "with_image": patients - patients // 20,
        "variables": variables,
    }


def comparison(scheme: str = "split") -> dict[str, Any]:
    """comparison.json of a finished comparison, free to be changed by a test before it is written."""
    rng = np.random.default_rng(7)
    sets = [("training", 420), ("validation", 90), ("test", 90)] if scheme == "split" else []
    split = {name.removesuffix("ing"): size for name, size in sets} or dict.fromkeys(("train", "validation", "test"))
    differences: dict[str, Any] = {}
    for endpoint in EVENTS:
        differences[endpoint] = [
            {
                "model": "mmnn_blending",
                "against": key,
                "metric": "harrell_c",
                "difference": figure(rng, 0.74 - index, 0.04, events=EVENTS[endpoint]),
                "p": 0.0004 if key == "densenet" else 0.21,
                "resampled_t": None
                if scheme == "split"
                else {"mean": 0.74 - index, "low": 0.62 - index, "high": 0.86 - index, "p": 0.312},
            }
            for key, _, _, _, index, _ in MODELS[1:]
        ]
    years = np.linspace(0, 8, 60)
    dm = 0.4 * (1 - np.exp(-0.5 * years))
    subgroups = [
        ("sex", "F", 40),
        ("sex", "M", 50),
        ("age", "below 60", 44),
        ("age", "60 and above", 46),
        ("grade", "low", 18),
        ("grade", "intermediate", 27),
        ("grade", "high", 45),
        ("location", "lower_extremity", 50),
        ("histology", "undifferentiated_pleomorphic_sarcoma", 31),
        ("site", SITE, 41),
    ]
    return {
        "schema_version": 1,
        "sites": ["site_1", SITE],
        "channels": ["t1", "t2"],
        "scheme": "one split, 70 / 15 / 15 % train / validation / test"
        if scheme == "split"
        else "5-fold cross-validation",
        "seed": 11,
        "horizons_years": [2, 5, 10],
        "wall_s": 4000.0,
        "synthetic": True,
        "flow": {
            "recorded": 612,
            "with_image": 571,
            "with_outcome": {"os": 600, "dm": 566},
            "metastatic_at_presentation": 36,
            **split,
        },
        "missing": {"age": 2, "sex": 0, "grade": 11, "depth": 31, "image": 29},
        "follow_up_days": {
            "os": {"median": 1511.0, "low": 1402.0, "high": 1640.0},
            "dm": {"median": 1388.0, "low": 1250.0, "high": None},
        },
        "taus": {"os": 2922.0, "dm": 2557.0},
        "cohort_by": [
            *(column(name, size) for name, size in sets),
            column("site_1", 350),
            column(SITE, 250),
            column("all", 600),
        ],
        "models": [
            {
                "key": key,
                "label": label,
                "inputs": inputs,
                "estimator": estimator,
                "paper": None if paper is None else PAPER[paper],
                "network": key in ("mmnn_blending", "mmnn", "densenet"),
            }
            for key, label, inputs, estimator, _, paper in MODELS
        ],
        "results": {
            key: {endpoint: estimates(rng, key, index, endpoint) for endpoint in EVENTS}
            for key, _, _, _, index, _ in MODELS
        },
        "differences": differences,
        "curves": {
            key: {endpoint: {years: curves(rng, index, key) for years in HORIZONS} for endpoint in EVENTS}
            for key, _, _, _, index, _ in MODELS
        },
        "cumulative_incidence": {
            "years": list(years),
            "dm": list(dm),
            "death_first": list(0.12 * (1 - np.exp(-0.3 * years))),
            "one_minus_km": list(1.12 * dm),
        },
        "subgroups": {
            endpoint: [
                {
                    "variable": variable,
                    "level": level,
                    "n": size,
                    "events": 1 if (variable, level) == ("grade", "low") else size // 3,
                    "harrell_c": nothing(too_few_events(1), n=size, events=1)
                    if (variable, level) == ("grade", "low")
                    else figure(rng, 0.7, 0.07, n=size, events=size // 3),
                }
                for variable, level, size in subgroups
            ]
            for endpoint in EVENTS
        },
        "explanations": {
            "sanity": {
                "os": [
                    {"layers": "another patient", "mean": 0.52, "low": 0.41, "high": 0.6, "n": 20, "patients": 24},
                    {"layers": "whole image encoder", "mean": None, "low": None, "high": None, "n": 0, "patients": 24},
                ]
            },
            "clinical": {
                endpoint: {
                    "Grade: high": 0.42,
                    "Largest tumour diameter": 0.31,
                    "Age at diagnosis": 0.22,
                    "Histological subtype: undifferentiated pleomorphic sarcoma": 0.14,
                    "Depth: deep": 0.09,
                    "Sex: F": 0.02,
                }
                for endpoint in EVENTS
            },
            "figures": [
                {"file": "private/heat_maps/1.png", "endpoint": "os", "right": True, "caption": "High risk, died."},
                {"file": "private/heat_maps/2.png", "endpoint": "os", "right": False, "caption": "Low risk, died."},
                {"file": "figures/heat_map_3.png", "endpoint": "dm", "right": True, "caption": "Low risk, free."},
            ],
            "pages": ["private/explain/1.html"],
        },
    }


def write_comparison(run: Path, record: dict[str, Any], *, scheme: str = "split") -> Path:
    """A run folder with the record and all that belongs to it."""
    folds = 1 if scheme == "split" else 5
    network = run / NETWORKS_FOLDER / BLENDED
    network.mkdir(parents=True)
    (run / "config.toml").write_text(CONFIG.format(scheme=scheme), encoding="utf-8")
    (run / "versions.json").write_text(json.dumps(VERSIONS), encoding="utf-8")
    (run / "comparison.json").write_text(json.dumps(record), encoding="utf-8")
    write_history(network, ("fusion", "image", "clinical"), [2, 4, None, 2, 6][:folds])
    rows, columns = np.mgrid[0:60, 0:180]
    for place, picture in enumerate(record["explanations"]["figures"] if record["explanations"] else []):
        path = run / picture["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        heat = np.exp(-((rows - 30) ** 2 + (columns % 60 - 25 - 4 * place) ** 2) / 120)
        imsave(path, heat, cmap="inferno")
    return run
