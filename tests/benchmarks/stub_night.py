"""The command with stub stages: ``python -m tests.benchmarks.stub_night run ROOT`` or ``serve ROOT``.

Everything is as in a real night, from the plan to the pages, but for what the stages compute. To be run from
the root of the repository.
"""

from flows.cli import app, main


def stub_command() -> None:
    """Run the command."""
    main()  # sets the environment before Prefect is imported
    import flows.serve
    from tests.benchmarks import stub_flow

    vars(flows.serve)["nightly"] = stub_flow.nightly
    app()


if __name__ == "__main__":
    stub_command()
