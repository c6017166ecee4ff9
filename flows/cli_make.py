"""Commands that need no trial: one simulates it, one trains a network."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.roots import Root


def simulate(
    root: Root,
    subjects: Annotated[int, typer.Option(min=1, help="Number of subjects.")] = 6,
    visits: Annotated[int, typer.Option(min=1, help="Visits a subject, half a year apart.")] = 2,
    seed: Annotated[int, typer.Option(help="Same seed, same trial.")] = 1,
    difficulty: Annotated[
        Literal["clean", "typical", "hard"], typer.Option(help="How far the images are from ideal.")
    ] = "typical",
    vendor: Annotated[
        Literal["phantom", "siemens", "philips", "ge", "mixed"],
        typer.Option(help="Whose scanners the sites have, and so how their files are written."),
    ] = "phantom",
    faults: Annotated[
        str,
        typer.Option(
            help="What goes wrong, separated by commas: demo (broken_file, no_guide, no_hematocrit), "
            "duplicate_upload, missing_echo, repeated_time, repeated_slice, same_uid, post_elsewhere, zip, "
            "compressed, scanner_change."
        ),
    ] = "demo",
    no_faults: Annotated[bool, typer.Option("--no-faults", help="Nothing goes wrong.")] = False,
    guides: Annotated[
        Literal["all", "some", "none"],
        typer.Option(help="Visits with a reader's guiding masks; some: every third."),
    ] = "some",
) -> None:
    """Write a digital trial with known truth: uploads as DICOM, subjects.csv, trial.toml, truth/."""
    from flows.simulate import Recipe, parse_faults, simulate_trial
    from flows.terminal import fail_clearly, simulation_progress

    with fail_clearly():
        chosen = () if no_faults else parse_faults(faults)
        recipe = Recipe(subjects, visits, seed, chosen, difficulty, vendor, guides)
        with simulation_progress(subjects * visits) as advance:
            simulate_trial(root, recipe, on_visit=advance)


def train(
    kind: Annotated[Literal["base", "guided"], typer.Argument(help="Which network.")],
    output: Annotated[Path, typer.Argument(help="Folder of checkpoint, learning curve, weights and card.")],
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of the optimizer.", show_default="base: 6000, guided: 2000"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same weights (on a CPU).")] = 0,
    start: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Weights to start from; of a base network for guided."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Labelled images to learn from: PATIENT/NAME_image.nii.gz with NAME_mask.nii.gz "
            "(1 RV, 2 myocardium, 3 blood pool); every fifth patient is held out. Else the digital trial.",
        ),
    ] = None,
    development: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Labelled images that choose among the weights instead of held-out ones.",
        ),
    ] = None,
    evaluate_every: Annotated[
        int, typer.Option(min=1, help="Steps between two scores and checkpoints.")
    ] = 250,
    patience: Annotated[int, typer.Option(min=1, help="Scores that may pass without a better one.")] = 12,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that draw samples ahead.")] = 1,
) -> None:
    """Train a network; the same command goes on with a training that was interrupted.

    Prints the digest that trial.toml names the weights by; put the file into weights/ of the trial's root.
    """
    from flows.terminal import fail_clearly, flow_progress

    with fail_clearly():
        from flows.server import prefect_server
        from flows.train import train as train_flow
        from flows.train import training_of
        from flows.training import check_training

        parameters: dict[str, Any] = {
            "kind": kind,
            "output": str(output),
            "steps": steps,
            "seed": seed,
            "start": None if start is None else str(start),
            "data": None if data is None else str(data),
            "development": None if development is None else str(development),
            "evaluate_every": evaluate_every,
            "patience": patience,
            "workers": workers,
        }
        # Before a server is started, which takes longer than to see what is wrong.
        check_training(training_of(**parameters))
        with prefect_server(), flow_progress("steps"):
            digest = train_flow(**parameters, device=device)
    typer.echo(f'{kind} = "{digest}"')
