"""The history of a training: losses and blending weights of each head by fold and round."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stsmm_core.report.run_files import broken, read_text
from stsmm_core.run_folder import HISTORY_COLUMNS, SITE_BLENDING_COLUMNS

FUSION = "fusion"


def read_history(path: Path, heads: Sequence[str]) -> pd.DataFrame:
    """Columns fold, round, head, train_loss, validation_loss, weight, sorted by fold and round, without a gap.

    Raises:
        RunError: when the file is missing or broken, or its heads are others than the experiment's.
    """
    if not path.is_file():
        read_text(path)
    try:
        table = pd.read_csv(path, encoding="utf-8", dtype={"head": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise broken(path, f"cannot be read as CSV ({error})") from None
    absent = [column for column in HISTORY_COLUMNS if column not in table]
    if absent:
        raise broken(path, f"lacks the columns {', '.join(absent)}")
    if table.empty:
        raise broken(path, "has no row")
    for column in HISTORY_COLUMNS:
        if column == "head":
            continue
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise broken(path, f"column {column} holds something that is not a number")
        optional = column in ("train_loss", "validation_loss")
        values = table[column].dropna() if optional else table[column]
        if not np.isfinite(values).all():
            raise broken(path, f"column {column} holds an {'infinite' if optional else 'empty or infinite'} value")
    table = table.astype({"fold": int, "round": int}).sort_values(["fold", "round"], kind="stable", ignore_index=True)
    _check_without_gap(table, heads, path)
    return table


def read_site_history(path: Path, heads: Sequence[str]) -> pd.DataFrame | None:
    """Columns fold, round, site, head, weight at the checkpoints; None where the sites had no weights of their own.

    Raises:
        RunError: when the file is broken, or its heads are others than the experiment's.
    """
    if not path.exists():
        return None
    try:
        table = pd.read_csv(path, encoding="utf-8", dtype={"site": str, "head": str}, keep_default_na=False)
        table = table.astype({"fold": int, "round": int, "weight": float})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, KeyError, ValueError) as error:
        raise broken(path, f"cannot be read ({error})") from None
    if set(table.columns) != set(SITE_BLENDING_COLUMNS) or set(table["head"]) != set(heads):
        raise broken(path, f"needs the columns {', '.join(SITE_BLENDING_COLUMNS)} and the experiment's heads")
    if not table["weight"].between(0, 1).all():
        raise broken(path, "column weight holds something that is not a share of 1")
    return table


def history_of(history: pd.DataFrame, fold: int, head: str) -> pd.DataFrame:
    """The rows of one head in one fold, index round."""
    rows = history[(history["fold"] == fold) & (history["head"] == head)]
    return rows.set_index("round")


def first_updates(history: pd.DataFrame) -> tuple[int | None, ...]:
    """A fold each, the first round after which the weights differ from those before; None where they never do."""
    rounds: list[int | None] = []
    for _, rows in history.groupby("fold"):
        weights = rows.pivot(index="round", columns="head", values="weight")
        changed = weights.index[(weights != weights.iloc[0]).any(axis=1)]
        rounds.append(int(changed[0]) if len(changed) else None)
    return tuple(rounds)


def _check_without_gap(history: pd.DataFrame, heads: Sequence[str], path: Path) -> None:
    folds = sorted(set(history["fold"]))
    if folds != list(range(len(folds))):
        raise broken(path, f"fold must take the values 0 to {len(folds) - 1}")
    if set(history["head"]) != set(heads):
        raise broken(path, f"its heads differ from those of the experiment ({', '.join(heads)})")
    for fold in folds:
        rows = history[history["fold"] == fold]
        last = int(rows["round"].max())
        for head in heads:
            rounds = rows.loc[rows["head"] == head, "round"].to_list()
            if rounds != list(range(last + 1)):
                raise broken(path, f"fold {fold}, head {head}: needs one row a round from 0 to {last}")
        if not np.allclose(rows.groupby("round")["weight"].sum(), 1, atol=0.01):
            raise broken(path, f"fold {fold}: the heads' weights do not sum to 1 in every round")
