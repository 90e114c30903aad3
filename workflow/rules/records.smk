# What lies beside a result says what it was made from, and so what is made again, with or without Snakemake's own memory
# in .snakemake/ (docs/running.md). Included last: it asks every rule what it would make its files from today.
from snakemake.dag import DAG
from snakemake.iocontainers import Wildcards
from snakemake.settings.enums import RerunTrigger
from stablevelocity.files import sha256
from stablevelocity.records import codes_line, lost, read_records, restore_times, seal
from stablevelocity.study.changes import same_settings
from stablevelocity.study.load import resolve
from stablevelocity.training import identity

TRAINED = {LAYOUT.training_metrics(name): run for name, run in or_one_line(resolve, STUDY, LAYOUT.root).runs().items()}
STAGES = [rule for rule in workflow.rules if "provenance" in rule.params.keys()]
REMADE_RUNS = []


def today(record):
    """(settings, code, names) that would make a record's files today; None for files that the study has no more. The
    names are those by which `remake` may ask for them; "code" is one of them where they follow the code unasked.
    """
    file = str(record.first)
    if file in TRAINED:
        return identity.settings_of(TRAINED[file]), identity.trainers_code(), {"train", TRAINED[file].name}
    for rule in STAGES:
        if rule.is_producer(file):
            wildcards = rule.get_wildcards(file)
            made = rule.params.provenance
            text, modules = made.today(Wildcards(fromdict=wildcards))
            return text, code(*modules), {rule.name, *wildcards.values(), *(["code"] if made.follows_code else [])}
    return None


def remade():
    """What is to be made again if other code made it: `--config remake=code`, or names of runs and rules."""
    given = config.get("remake", [])
    names = {str(name) for name in (given if isinstance(given, list) else [given])}
    known = {"code", "train", *RUNS, *(rule.name for rule in STAGES)}
    if names - known:
        raise UserError(
            f"remake: {', '.join(names - known)} given, expected code, or names of {', '.join(sorted(known))}"
        )
    return names


def compare_with_records():
    """(files to make again, as their settings changed or `remake` asks for it; checksums of files that are made again as
    one is missing). What other code made stays, and so does what was made from a file that is missing.
    """
    records, names = read_records(LAYOUT.root), remade()
    restore_times(records)
    forced, older, missing = [], [], lost(records)
    for record in records:
        waits = TRAINED.get(str(record.first))
        if (now := today(record)) is None or (waits and waits.waits_for_curve):  # the curve itself is made again first
            continue
        text, code_now, own_names = now
        other_code = record.code != code_now and not record.verified_under(code_now)
        asked = "code" in {*names, *own_names} or bool(names & own_names)
        if not same_settings(record.facts["settings"], text) or other_code and asked:
            forced += map(str, record.outputs)
            REMADE_RUNS.extend(own_names & set(RUNS) if str(record.first) in TRAINED and other_code else [])
        elif record.code != code_now:
            older.append((record, code_now))
    if line := codes_line(LAYOUT.root, older):
        logger.info(line)
    # Where settings changed, a missing file may come out otherwise: then nothing after it may be left as it is.
    return forced, {} if forced else missing


if workflow.is_main_process:
    FORCED, MISSING = or_one_line(compare_with_records)
    init, update = DAG.__init__, DAG.update_needrun

    def with_forced(self, workflow, *arguments, forcefiles, **named):
        workflow.group_settings.group_components = UNITS | dict(workflow.group_settings.group_components)
        # Not by Snakemake's memory of parameters and shell lines, which newer code may write otherwise.
        workflow.dag_settings.rerun_triggers &= {RerunTrigger.MTIME, RerunTrigger.INPUT}
        init(self, workflow, *arguments, forcefiles={*forcefiles, *FORCED}, **named)

    async def without_missing(self, *arguments, **named):
        # A job whose reason to run would be that such files are made again has none; where it has another, it waits.
        whole = {job: dict(following) for job, following in self.depending.items()}
        for following in self.depending.values():
            for job in [job for job, files in following.items() if MISSING.keys() >= set(map(str, files))]:
                del following[job]
        await update(self, *arguments, **named)
        for job, following in whole.items():
            self.depending[job].update(following)

    # --forcerun would make them targets too, asked for or not.
    DAG.__init__, DAG.update_needrun = with_forced, without_missing


check = DAG.check_and_touch_output


async def check_output(self, job, *arguments, **named):
    """Snakemake touches all that a job has made, and the next start would read it to see that it is what its record
    says. It is needed only where the clocks of hosts differ.
    """
    await check(self, job, *arguments, **named, no_touch=True)  # waits for files that a file system shows late
    newest = max((Path(file).stat().st_mtime for file in job.input if Path(file).exists()), default=0)
    if any(Path(file).stat().st_mtime < newest for file in job.output if Path(file).exists()):
        await check(self, job, *arguments, **named)


DAG.check_and_touch_output = check_output


def tell_of_changed():
    """Say which files that were missing came out otherwise: what follows from them was not made again."""
    if changed := [file for file, known in MISSING.items() if Path(file).exists() and sha256(file) != known]:
        logger.info(
            f"{len(changed)} files that were missing came out other than before ({changed[0]}): "
            "start again, and what follows from them is made again"
        )


onsuccess:
    if workflow.is_main_process and not workflow.dryrun:
        or_one_line(tell_of_changed)
        or_one_line(seal, Path(LAYOUT.root))
