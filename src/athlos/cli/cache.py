"""`athlos cache`: what the cache holds, by stage, with size, age and users; `athlos cache prune` removes from it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from athlos.cache_contents import Criteria, OtherEntry, StoredProduct, cache_contents, chosen, prune
from athlos.cli.listing import aligned
from athlos.cli.panels import visible

SIZE_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
AGE_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def print_cache(root: Path, *, criteria: Criteria, is_verbose: bool = False, as_json: bool = False) -> None:
    """Print the products that meet the criteria, what else stands in the cache, and the total.

    Raises `ConfigError` where there is no cache folder, and for an unknown stage.
    """
    contents = cache_contents(root)
    products = chosen(contents, criteria)
    others = contents.others if criteria.is_empty else ()
    total = sum(product.size for product in products) + sum(other.size for other in others)
    if as_json:
        listing = {
            "cache": str(contents.root),
            "products": [_plain(product) for product in products],
            "others": [asdict(other) for other in others],
            "total_bytes": total,
        }
        print(json.dumps(listing, indent=1, ensure_ascii=False))
        return
    header, *lines = aligned([_row(product) for product in products]) or [f"no products in {contents.root}"]
    print(visible(header))
    for line, product in zip(lines, products, strict=True):
        print(visible(line))
        for user in product.users if is_verbose else ():
            print(f"    {visible(str(user))}{'' if user.is_dir() else ' (gone)'}")
    for line in aligned([_other_row(other) for other in others]):
        print(visible(line))
    print(visible(f"{_counted(len(products))}, {readable_size(total)} in all in {contents.root}"))


def print_pruned(root: Path, *, criteria: Criteria, is_dry: bool = False, as_json: bool = False) -> None:
    """Remove the products that meet the criteria and print each with the bytes that this frees.

    Raises `ConfigError` without a criterion, where there is no cache folder, and for an unknown stage.
    """
    contents = cache_contents(root)
    removed: list[StoredProduct] = []
    kept: list[StoredProduct] = []
    for product, is_removed in prune(contents, criteria, is_dry=is_dry):
        (removed if is_removed else kept).append(product)
        if not as_json:
            print(visible(_pruned_line(product, is_removed=is_removed, is_dry=is_dry)), flush=True)
    freed = sum(product.freed for product in removed)
    if as_json:
        outcome = {
            "cache": str(contents.root),
            "is_dry": is_dry,
            "removed": [_plain(product) for product in removed],
            "kept": [_plain(product) for product in kept],
            "freed_bytes": freed,
        }
        print(json.dumps(outcome, indent=1, ensure_ascii=False))
    else:
        print(f"{'would free' if is_dry else 'frees'} {readable_size(freed)} ({freed} bytes), {_counted(len(removed))}")


def readable_size(num_bytes: int) -> str:
    """`0 B`, `12.3 kB`, `1.5 GB`, in powers of 1000."""
    for size, unit in SIZE_UNITS:
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} B"


def readable_age(seconds: float) -> str:
    """`now`, `12 min`, `5 h`, `30 d`, rounded down."""
    for size, unit in AGE_UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "now"


def _counted(num_products: int) -> str:
    return f"{num_products} product{'' if num_products == 1 else 's'}"


def _row(product: StoredProduct) -> dict[str, str]:
    gone = len(product.users) - len(product.present_users)
    return {
        "stage": product.stage,
        "key": product.key,
        "size": readable_size(product.size),
        "age": readable_age(product.age_s),
        "state": product.state,
        "run folders": f"{len(product.present_users)}{f' and {gone} gone' if gone else ''}",
    }


def _other_row(other: OtherEntry) -> dict[str, str]:
    return {"beside the products": other.name, "size": readable_size(other.size), "what it is": other.description}


def _pruned_line(product: StoredProduct, *, is_removed: bool, is_dry: bool) -> str:
    name = f"{product.stage}/{product.path.name}"
    if not is_removed:
        return f"kept {name}: another job holds its lock"
    return f"{'would remove' if is_dry else 'removed'} {name}, {product.state}, frees {readable_size(product.freed)}"


def _plain(product: StoredProduct) -> dict[str, Any]:
    return {
        "stage": product.stage,
        "key": product.key,
        "path": str(product.path),
        "state": product.state,
        "bytes": product.size,
        "freed_bytes": product.freed,
        "age_s": round(product.age_s),
        "run_folders": [{"path": str(user), "exists": user.is_dir()} for user in product.users],
    }
