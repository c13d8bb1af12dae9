#!/usr/bin/python3
"""Fails unless a scrape in text 0.0.4 and one in OpenMetrics say the same.

usage: openmetrics.py TEXT OPENMETRICS [PREFIX...]

Each is read by the parser that Prometheus' own client library has for it. The values of series
whose name begins with a PREFIX may differ: they move between two scrapes.
"""

import sys

from prometheus_client import parser as text
from prometheus_client.openmetrics import parser as openmetrics


def families(parser, path):
    with open(path, encoding="utf-8", newline="\n") as scrape:
        return list(parser.text_fd_to_metric_families(scrape))


def described(found):
    """What is said of each family. The parser of text leaves `_total` off counters as well."""
    return {family.name: (family.type, family.documentation) for family in found}


def labels_of(sample):
    """The labels, with `le` and `quantile` as numbers: only their spelling differs."""
    numbers = ("le", "quantile")
    return frozenset((name, float(value) if name in numbers else value) for name, value in sample.labels.items())


def valued(found, moving):
    """The value of each series, as text so that NaN equals itself. -0 is 0: one parser reads it so."""
    samples = [sample for family in found for sample in family.samples]
    series = {}
    for sample in samples:
        if sample.timestamp is not None or sample.exemplar is not None:
            sys.exit(f"it has more than a value: {sample}")
        value = "moving" if sample.name.startswith(moving) else repr(float(sample.value) + 0.0)
        series[sample.name, labels_of(sample)] = value
    if len(series) != len(samples):
        sys.exit("a series is there twice")
    return series


def differences(one, other):
    keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
    return [f"{key}: {one.get(key)} or {other.get(key)}" for key in keys]


def main(text_path, openmetrics_path, *moving):
    one, other = families(text, text_path), families(openmetrics, openmetrics_path)
    found = differences(described(one), described(other)) + differences(valued(one, moving), valued(other, moving))
    if found:
        sys.exit("\n".join(found))
    print(sum(len(family.samples) for family in one))


main(*sys.argv[1:])
