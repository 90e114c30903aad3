"""The graph of stages in the report is that of the rules, taken together by stage."""

import re

import pytest
from project import ROOT, Workflow

from stablevelocity.reporting.stages import graph, stage_of
from stablevelocity.study import load_study


def edges_of_rules(config: str) -> set[tuple[str, str]]:
    """(before, after) by Snakemake's own graph, without its target."""
    done = Workflow(ROOT).snakemake("-n", "all", "--rulegraph", "dot", "--configfile", config, "--nolock")
    assert done.returncode == 0, done.stderr
    names = dict(re.findall(r'(\d+)\[label = "([^"]+)"', done.stdout))
    return {(names[one], names[two]) for one, two in re.findall(r"(\d+) -> (\d+)", done.stdout) if names[two] != "all"}


@pytest.mark.parametrize("name", ["digits", "evidence", "pretrained-tiny"])
def test_the_graph_of_stages_is_that_of_the_rules(name):
    """Each edge between rules is a way between their stages, and each edge between stages one between rules."""
    nodes = graph(load_study(ROOT / f"config/{name}.yaml"), None)
    real = {(stage_of(one), stage_of(two)) for one, two in edges_of_rules(f"config/{name}.yaml")}
    real = {(one, two) for one, two in real if one != two}
    assert {stage for edge in real for stage in edge} == set(nodes)

    def before(stage: str) -> set[str]:
        return set(nodes[stage].after).union(*(before(one) for one in nodes[stage].after))

    for one, two in real:
        assert one in before(two), (one, two)
    for node in nodes.values():
        for one in node.after:
            assert (one, node.name) in real, (one, node.name)
            assert nodes[one].layer < node.layer
