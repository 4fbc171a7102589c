"""The construction: tables of the training rows, which a sweep of smoothings counts once."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from athlos.config.part_report import PartReport
from athlos.config.schema import RunConfig
from athlos.data.encoding import tokenizer_hash
from athlos.errors import DataError
from athlos.methods.ndp.building import clm_rows, mono_rows, sup_rows
from athlos.methods.ndp.config import NdpConstructConfig, drops_repeats
from athlos.methods.ndp.corpora import Documents, ShardedRows, domain_documents, first_occurrences, training_rows
from athlos.methods.ndp.hashing import num_collisions
from athlos.methods.ndp.products import Source, data_hash, shard_size, suffix_product, table_product
from athlos.methods.ndp.reading import NdpTables
from athlos.methods.ndp.suffixes import SuffixReader
from athlos.methods.ndp.tables import CountTable, TableIdentity
from athlos.parts import Made, PartContext
from athlos.stages import Product, content_hash

log = logging.getLogger(__name__)


class NdpConstruct:
    def __init__(self, config: NdpConstructConfig) -> None:
        self.config = config

    def build(self, *, context: PartContext) -> Made:
        """The tables as `product`; as `rows` the training rows less those that the method's arm leaves out."""
        assert context.data is not None
        split = context.config.data.train_split
        assert split is not None
        node = self.config
        all_rows = context.data.rows(split)
        rows = training_rows(all_rows, shard_tokens=shard_size(node), dedup=node.dedup)
        documents = None
        if node.mono is not None:
            documents = domain_documents(node.mono, context=context, shard_tokens=shard_size(node))
        sources = {
            "sup": [Source(rows=rows, make=sup_rows, settings={})],
            "clm": [Source(rows=rows, make=partial(clm_rows, n=node.n), settings={"n": node.n})],
        }
        if documents is not None:
            make = partial(mono_rows, n=node.n, longest=rows.longest)
            settings = {"n": node.n, "longest": rows.longest}
            sources["clm"].append(Source(rows=documents.rows, make=make, settings=settings))
        identities = {kind: self._identity(kind, source, context=context) for kind, source in sources.items()}
        products = {
            kind: table_product(source, node, identity=identities[kind], stages=context.stages)
            for kind, source in sources.items()
        }
        tables = {kind: CountTable.open(product.path, expected=identities[kind]) for kind, product in products.items()}
        tables_of_rows = NdpTables(
            rows=all_rows,
            sup=tables["sup"],
            clm=tables["clm"],
            n=node.n,
            joins_first=rows.joins_first,
            sup_key=products["sup"].key,
            clm_key=products["clm"].key,
            slide=self._slide(rows, context=context) if node.slide.window else None,
        )
        has_fewer_rows = drops_repeats(context.config)
        kept_R = rows.kept_R if node.dedup or not has_fewer_rows else first_occurrences(rows)
        return Made(
            key=content_hash([products["sup"].key, products["clm"].key, has_fewer_rows]),
            report=self._report(tables_of_rows, rows, documents, list(products.values())),
            rows=all_rows.subset(np.flatnonzero(kept_R)) if has_fewer_rows else None,
            product=tables_of_rows,
        )

    def _slide(self, rows: ShardedRows, *, context: PartContext) -> SuffixReader:
        slide, sources = self.config.slide, [Source(rows=rows, make=sup_rows, settings={})]
        identity = replace(self._identity("slide", sources, context=context), n=slide.window)
        product = suffix_product(rows, self.config, identity=identity, stages=context.stages)
        return SuffixReader(
            table=CountTable.open(product.path, expected=identity),
            key=product.key,
            window=slide.window,
            n=self.config.n,
            backoff=slide.backoff,
            additive=slide.additive,
        )

    def _identity(self, kind: str, sources: Sequence[Source], *, context: PartContext) -> TableIdentity:
        return TableIdentity(
            kind=kind,
            n=0 if kind == "sup" else self.config.n,
            vocab_size=len(context.tokenizer),
            tokenizer=tokenizer_hash(context.tokenizer),
            template=template_hash(context.config, chat_template=context.tokenizer.chat_template),
            data=data_hash(sources),
        )

    def _report(
        self, made: NdpTables, rows: ShardedRows, documents: Documents | None, products: Sequence[Product]
    ) -> PartReport:
        tables = [made.sup, made.clm, *([made.slide.table] if made.slide else [])]
        num_dropped = int((~rows.kept_R).sum())
        tokens = rows.num_tokens + (documents.rows.num_tokens if documents else 0)
        seconds = sum(product.seconds for product in products)
        metrics = {
            "cost/table_tokens_per_s": tokens / max(seconds, 1e-9),
            "cost/table_mb": sum(table.num_bytes for table in tables) / (1 << 20),
            "ndp/sup_prefixes": float(made.sup.num_rows),
            "ndp/clm_prefixes": float(made.clm.num_rows),
            "ndp/repeated_rows": float(num_dropped),
            "ndp/hash_collisions": float(self._collisions(rows)),
        }
        if documents is not None:
            metrics["ndp/mono_documents_left_out"] = float(documents.num_left_out)
        summary = (
            f"n-gram tables: {made.sup.num_rows} prefixes with prompt, {made.clm.num_rows} without (n = {made.n}), "
            f"{metrics['cost/table_mb']:.1f} MiB"
        )
        return PartReport(summary=summary, metrics=metrics)

    def _collisions(self, rows: ShardedRows) -> int:
        """Collisions among a sample of the first shard's prefixes; any is an error."""
        corpus = rows.shard(0)
        collisions = num_collisions(corpus.tokens_N, corpus.lengths_R, sample=self.config.collision_sample)
        if collisions:
            raise DataError(
                f"n-gram tables: {collisions} different prefixes have the key of another; report this as a bug"
            )
        return collisions


def template_hash(config: RunConfig, *, chat_template: object) -> str:
    """Content hash of what stands around questions and answers."""
    return content_hash({"chat_template": chat_template, "style": config.prompt_style})
