# The study, the site, and what every rules file uses: paths, resources, and the triggers of a re-run.
import functools
import hashlib
import json
import re

from snakemake.utils import update_config
from stablevelocity.cluster.backends import remove_job_variables
from stablevelocity.cluster.resources import check_rules, snakemake_resources, training_resources
from stablevelocity.cluster.site import SITE_FILE, load_site
from stablevelocity.cluster.study_lock import acquire_study_lock, remove_stale_locks
from stablevelocity.cli.failures import one_line
from stablevelocity.errors import UserError
from stablevelocity.files import atomic_write
from stablevelocity.provenance import code_hash
from stablevelocity.study import parse_study, read_yaml, study_json
from stablevelocity.study.layout import Layout

DEFAULT_STUDY = Path(workflow.basedir).parent / "config" / "digits.yaml"


def or_one_line(function, *arguments):
    """Call; what the user can correct ends Snakemake in one line."""
    try:
        return function(*arguments)
    except (UserError, OSError) as error:
        sys.exit(f"error: {one_line(error)}")


def read_study():
    """The study of this invocation: --configfile and --config without `remake`, or the default study."""
    files = workflow.configfiles
    content = {} if files else read_yaml(DEFAULT_STUDY)
    # As Snakemake does it for its files: the command line wins, key by key of nested sections.
    update_config(content, {key: value for key, value in config.items() if key != "remake"})
    return parse_study(content, ", ".join(map(str, files)) or str(DEFAULT_STUDY))


def read_site():
    site = load_site(SITE_FILE)
    check_rules(site)
    return site


STUDY = or_one_line(read_study)
SITE = or_one_line(read_site)
LAYOUT = Layout(f"results/{STUDY.name}")
STUDY_FILE = LAYOUT.study
RUNS = STUDY.runs()

# Every file that the stages leave, filled by the rules files. `all` asks for each of them, not for the report alone:
# so one that was deleted is made again.
PRODUCTS = []

# Priority of the jobs that the first figures need, those of the variance: they are there within a minute.
FIRST = 20

# By rule: what its jobs ask for, filled by the rules files.
NEEDS = {}


def needs(rule):
    """Resources of a rule's jobs, by stablevelocity/cluster/resources.py and the site file."""
    NEEDS[rule] = snakemake_resources(rule, STUDY, SITE)
    return NEEDS[rule]


def settings(*parts):
    """The values that a rule depends on, as text: a change of one makes the rule run again."""
    plain = [part.model_dump(mode="json") if hasattr(part, "model_dump") else part for part in parts]
    return json.dumps(plain, sort_keys=True)


@functools.cache
def code(*modules):
    """Hash of the package's code in `modules`."""
    return code_hash(*(f"stablevelocity.{module}" for module in modules))


def stage(*modules, settings="", follows_code=False, **others):
    """Parameters of a rule: words for the verb, which leaves beside its results what they were made from. A change of
    the settings makes it run again, a change of its code (`modules`) only with `follows_code`: what costs seconds.
    """

    def today(wildcards):
        given = [module(wildcards) if callable(module) else module for module in modules]
        text = settings(wildcards) if callable(settings) else settings
        # Those of a whole study would make each command a page long.
        return text if len(text) < 2000 else hashlib.sha256(text.encode()).hexdigest(), given

    def provenance(wildcards, input, output):
        text, given = today(wildcards)
        words = {"--reads": input, "--makes": output, "--code": given, "--settings": [text] if text else []}
        return [word for option, values in words.items() for value in values for word in (option, value)]

    provenance.today, provenance.follows_code = today, follows_code
    return {"provenance": provenance, **others}


def present(path):
    """A file that the study names from outside, as an input: its change makes the rule run again. One that is not
    there is no input, so that a study can be planned without its data; `onstart` refuses to run it. Nor is one with a
    brace in its path, which Snakemake would take for a wildcard: `state_of` has it.
    """
    return [str(path)] if path is not None and path.exists() and "{" not in str(path) else []


def state_of(*paths):
    """For `settings`: size and time of writing of the files that are there but cannot be inputs, see `present`."""
    there = [path.stat() for path in paths if path is not None and path.exists() and not present(path)]
    return [[state.st_size, state.st_mtime_ns] for state in there]


def needs_features(run):
    """Whether a run is trained with the frozen encoder's features."""
    return run.alignment is not None or run.class_token


def one_of(names):
    """The pattern of a wildcard that is one of `names`."""
    return "|".join(map(re.escape, names))


wildcard_constraints:
    split="train|heldout",
    shard=r"\d{5}",
    step=r"\d{8}",
    run=one_of(RUNS),
    sampler=one_of(STUDY.sampling.samplers),
