"""RecBole's Dataset with this package's sources, a stable leave-one-out split, and item features by raw token.

RecBole filters, remaps tokens to ids (from 1, 0 is padding) and hands parts to its samplers, loaders and models.
What is ours: rows come from a `Source`, atomic files through the package's one reader; duplicates are counted once, the
first, before filter and split; ties in time keep file order; labels that a source ships are used; features are aligned
to the ids. `prepared` is the same data for our engines, ids from 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from fedvlr_plugin.data.atomic_files import AtomicSource
from fedvlr_plugin.data.catalogue import find_source
from fedvlr_plugin.data.interactions import IntArray, Interactions, leave_one_out
from fedvlr_plugin.data.item_features import ItemFeatures
from fedvlr_plugin.data.prepared import PreparedData
from fedvlr_plugin.data.reading import columns
from fedvlr_plugin.data.reading.atomic import read_atomic
from fedvlr_plugin.data.reading.tables import Table
from fedvlr_plugin.data.recbole.config import given_keys, given_root
from fedvlr_plugin.data.source import ITEM, LABEL, RATING, TIME, USER, Source
from fedvlr_plugin.errors import ConfigError, DataError

from recbole.data.dataset import Dataset  # isort: skip
from recbole.utils import FeatureSource, FeatureType  # isort: skip

LEAVE_ONE_OUT = {"LS": "valid_and_test"}


class FedVLRDataset(Dataset):
    """A RecBole data set with `item_features` and `prepared`.

    Raises:
        ConfigError: evaluation settings other than leave-one-out in time.
        DataError: unreadable files, nobody left after the filter.
        UnknownNameError: no data set of that name.
    """

    inter_feat: pd.DataFrame  # an Interaction after build

    def _get_field_from_config(self) -> None:
        super()._get_field_from_config()
        self._check_settings()
        self.source: Source = find_source(self.dataset_name, given_root(given_keys(self.config)))
        self._features: ItemFeatures | None = None
        self._prepared: PreparedData | None = None
        self._dropped = 0

    def _check_settings(self) -> None:
        """Put our evaluation where the user gave none, and refuse what this class does not do."""
        given = given_keys(self.config)
        if "eval_args" not in given:
            mode = {"valid": "full", "test": "full"}
            self.config["eval_args"] = {"split": LEAVE_ONE_OUT, "order": "TO", "group_by": "user", "mode": mode}
        if "load_col" not in given and self.time_field not in (self.config["load_col"] or {}).get(
            "inter", [self.time_field]
        ):
            fields = (self.uid_field, self.iid_field, self.config["RATING_FIELD"], self.time_field)
            self.config["load_col"] = {"inter": list(fields)}
        args = self.config["eval_args"]
        by_user = args["group_by"] in ("user", None)
        if (
            args["split"] != LEAVE_ONE_OUT
            or args["order"] != "TO"
            or not by_user
            or self.benchmark_filename_list is not None
        ):
            raise ConfigError(
                f"FedVLRDataset splits leave-one-out in time; got split {args['split']}, order {args['order']}, group_by "
                f"{args['group_by']}, benchmark_filename {self.benchmark_filename_list}. Set eval_args: {{split: {{LS: "
                "valid_and_test}, order: TO, group_by: user, mode: full} and no benchmark_filename (a fixed split: a column "
                "x_label of 0, 1, 2 in the data set's file), or take VBPR, BM3, MGCN or PGL, which split as RecBole does"
            )
        if given.get("rm_dup_inter") not in (None, "first"):
            raise ConfigError(
                f"rm_dup_inter is {given['rm_dup_inter']!r}, but of repeated (user, item) pairs the first is kept; leave it "
                "out, or set keep_duplicates: True"
            )

    def _load_data(self, token: str, dataset_path: str) -> None:
        if isinstance(self.source, AtomicSource):
            self._load_atomic(self.source, token, dataset_path)
            return
        frame = self.source.interactions()
        names = {USER: self.uid_field, ITEM: self.iid_field, TIME: self.time_field, RATING: self.config["RATING_FIELD"]}
        self.inter_feat = frame.rename(columns=names)
        for column, field in names.items():
            kind = FeatureType.TOKEN if column in (USER, ITEM) else FeatureType.FLOAT
            self.set_field_property(field, kind, FeatureSource.INTERACTION, 1)
        self.user_feat = self.item_feat = None

    def _load_atomic(self, source: AtomicSource, token: str, dataset_path: str) -> None:
        """Atomic files by our reader (`_load_feat`), in the columns that RecBole's settings ask for."""
        needed = (self.uid_field, self.iid_field, self.time_field)
        separator, encoding = self.config["field_separator"], self.config["encoding"] or "utf-8"
        self._inter = source.read(needed, separator=separator, encoding=encoding)
        wanted = (self.config["load_col"] or {}).get("inter")
        if wanted is not None and LABEL in self._inter.table:
            self.config["load_col"] = {**self.config["load_col"], "inter": [*dict.fromkeys([*wanted, LABEL])]}
        path = source.data_path()
        try:
            super()._load_data(token, dataset_path if path is None else str(Path(path) / source.folder.name))
        except DataError:
            raise
        except ValueError as error:  # what RecBole says of its own settings
            raise DataError(f"{token}/{token}.inter cannot be read: {' '.join(str(error).split())}") from None
        del self._inter
        loaded: pd.DataFrame = self.inter_feat
        if missing := [field for field in needed if field not in loaded]:
            raise DataError(f"data set '{token}': load_col leaves out {', '.join(missing)}, which the split needs")

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        self.inter_feat = self._load_feat(f"{dataset_path}/{token}.inter", FeatureSource.INTERACTION)

    def _load_feat(self, filepath: str, source: FeatureSource | str) -> pd.DataFrame | None:
        """One atomic file as RecBole's `_load_feat` gives it, read by this package's reader.

        Ids, times, ratings and labels of interactions are checked; elsewhere an empty field is a missing value. No word
        (`null`, `NA`) stands for a missing token.

        Args:
            filepath: the file.
            source: interactions, users, items, or the suffix of a further file.
        """
        wanted, left_out = self._get_load_and_unload_col(source)
        if wanted == set():
            return None
        path = Path(filepath)
        of_interactions = source == FeatureSource.INTERACTION
        if of_interactions:
            atomic = self._inter
        else:
            separator, encoding = self.config["field_separator"], self.config["encoding"] or "utf-8"
            where = f"{path.parent.name}/{path.name}"
            atomic = read_atomic(path, where, separator=separator, encoding=encoding)
        table, frame = atomic.table, pd.DataFrame(index=range(len(atomic.table)))
        for field, spelled in atomic.types.items():
            if (wanted is not None and field not in wanted) or (left_out is not None and field in left_out):
                continue
            kind = FeatureType(spelled)
            if field in (self.uid_field, self.iid_field):
                kind, values = FeatureType.TOKEN, np.array(columns.tokens(table, field), dtype=object)
            elif of_interactions and field == self.time_field:
                kind, values = FeatureType.FLOAT, columns.times(table, field)
            elif of_interactions and field == LABEL:
                kind, values = FeatureType.FLOAT, columns.labels(table, field)
            elif of_interactions and field == self.config["RATING_FIELD"] and kind == FeatureType.FLOAT:
                values = columns.numbers(table, field)
            else:
                values = self._values(table, field, kind)
            frame[field] = values
            length = max(map(len, values), default=0) if kind.value.endswith("seq") else 1
            if source != "link":
                self.field2source[field], self.field2type[field] = source, kind
                self.field2seqlen[field] = length
                if "float" in kind.value:
                    self.field2bucketnum[field] = 2
        return None if frame.columns.empty else frame

    def _values(self, table: Table, field: str, kind: FeatureType) -> npt.NDArray[np.generic]:
        """Convert a column of a file by its type; empty fields become NaN, or an empty sequence."""
        if kind == FeatureType.FLOAT:
            return columns.numbers_or_missing(table, field)
        out: npt.NDArray[np.generic] = np.empty(len(table), dtype=object)
        if kind == FeatureType.TOKEN:
            out[:] = [value or np.nan for value in table[field]]
            return out
        most = (self.config["seq_len"] or {}).get(field)
        for row, value in enumerate(table[field]):
            parts = [part for part in value.split(self.config["seq_separator"]) if part][:most]
            if kind == FeatureType.TOKEN_SEQ:
                out[row] = np.array(parts, dtype=object) if parts else np.array([])
                continue
            try:
                out[row] = np.array([float(part) for part in parts])
            except ValueError:
                raise DataError(f"{table.at(row)}: the {field} is {value!r}; numbers are needed") from None
        return out

    def _data_filtering(self) -> None:
        """Apply RecBole's filters, with this package's removal of duplicates, and then label the split."""
        self._filter_nan_user_or_item()
        first = ~self.inter_feat.duplicated([self.uid_field, self.iid_field], keep="first")
        self._dropped = int((~first).sum())
        if not self.config["keep_duplicates"]:
            self.inter_feat = self.inter_feat[first]
        self._filter_by_field_value()
        self._filter_inter_by_user_or_item()
        labelled = LABEL in self.inter_feat
        if not labelled and self.source.min_interactions:
            pairs = self.inter_feat.drop_duplicates([self.uid_field, self.iid_field])
            sizes = pairs.groupby(self.uid_field, sort=False).size()
            kept = sizes.index[sizes >= self.source.min_interactions]
            if not len(kept):
                raise DataError(
                    f"data set '{self.dataset_name}': no user is left after the filter; the most active of {len(sizes)} has "
                    f"{int(sizes.max()) if len(sizes) else 0} distinct items, {self.source.min_interactions} are needed"
                )
            self.inter_feat = self.inter_feat[self.inter_feat[self.uid_field].isin(kept)]
        self._filter_by_inter_num()
        self._reset_index()
        self._labels = self._split(labelled)
        self._unit = columns.time_unit(self.inter_feat[self.time_field].to_numpy())
        self.inter_feat[self.time_field] = self.inter_feat[self.time_field].astype(np.float64)  # as RecBole keeps it

    def _split(self, labelled: bool) -> IntArray:
        """Return labels 0, 1, 2 of the interactions, from the source or by time."""
        frame: pd.DataFrame = self.inter_feat
        if labelled:
            labels: IntArray = frame.pop(LABEL).to_numpy(dtype=np.int64)
            return labels
        users = pd.factorize(frame[self.uid_field].to_numpy())[0].astype(np.int64)
        return leave_one_out(users, frame[self.time_field].to_numpy())

    def build(self) -> list[FedVLRDataset]:
        """Return the training, validation and test parts; may be called repeatedly."""
        if isinstance(self.inter_feat, pd.DataFrame):
            self._change_feat_format()
        labels = torch.from_numpy(self._labels)
        self._prepared = self.prepared  # parts carry the whole, whatever their own rows
        return [self.copy(self.inter_feat[labels == part]) for part in (0, 1, 2)]

    @property
    def item_tokens(self) -> tuple[str, ...]:
        """Raw tokens of the items in the order of `Interactions` (RecBole's id minus one)."""
        return tuple(str(token) for token in self.field2id_token[self.iid_field][1:])

    @property
    def item_features(self) -> ItemFeatures:
        """Dense features by modality; vector i belongs to RecBole's item i + 1, and missing ones are the mean."""
        if self._features is None:
            tokens = self.item_tokens
            self._features = ItemFeatures([features.align(tokens) for features in self.source.features()])
        return self._features

    @property
    def prepared(self) -> PreparedData:
        """The same users, items and split for this package's engines and evaluation, ids from 0."""
        if self._prepared is None:
            rows_user, rows_item = (
                np.asarray(self.inter_feat[f]).astype(np.int64) - 1 for f in (self.uid_field, self.iid_field)
            )
            users = tuple(str(token) for token in self.field2id_token[self.uid_field][1:])
            interactions = Interactions.from_labels(rows_user, rows_item, self._labels, users, self.item_tokens)
            origin = {f"features_{name}": modality.source for name, modality in self.item_features.items()}
            facts = self.source.facts() | {"duplicate_rows": self._dropped, "times": self._unit} | origin
            self._prepared = PreparedData(self.dataset_name, interactions, self.item_features, facts)
        return self._prepared
