"""`podtool models`: the weights in the store - list, pull, verify, path, rm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import shared

if TYPE_CHECKING:
    from podtool.store import ModelStore
    from podtool.store.table import Model

app = typer.Typer(help="Weights: what there is, what is here, pull, verify.", no_args_is_help=True)

Names = Annotated[
    list[str], typer.Argument(metavar="ID...", help="Model ids or groups, such as 'embedded'.")
]
OneName = Annotated[str, typer.Argument(metavar="ID", help="Model id.")]


@app.command("list")
def list_models(json: shared.Json = False) -> None:
    """All models: stage, licence, size, and whether they are here."""
    from podtool.store import ModelStore, human

    store = ModelStore()
    models = list(store.table.models.values())
    if json:
        shared.json_rows(_facts(store, model) for model in models)
        return
    rows = [
        [m.id, m.stage, _licence(m), human(m.bytes), store.state(m.id), ", ".join(m.groups)]
        for m in models
    ]
    columns = ["model", "stage", "licence", "size", "state", "groups"]
    shared.table(f"Models in {store.root}", columns, rows, to_stdout=True)


@app.command()
def pull(
    names: Names,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept a gated or non-commercial licence.")
    ] = False,
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Refuse gated and non-commercial licences.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Touch no network: copy from local paths only.")
    ] = False,
    json: shared.Json = False,
) -> None:
    """Fetch what is missing of the named models; licence and size are shown first."""
    import os

    from podtool.store import ModelStore, human

    if offline:
        os.environ["PODTOOL_OFFLINE"] = "1"
    store = ModelStore()

    def announce(model: Model) -> None:
        shared.note(f"{model.id}: {human(model.bytes)}, {_licence(model)}, see {model.source}")

    with shared.progress() as observer:
        pulled = store.pull(
            names,
            accept_licence=accept_licence,
            commercial=commercial,
            announce=announce,
            on_progress=observer,
        )
    if json:
        shared.json_rows(_facts(store, model) for model in store.table.expand(names))
    elif pulled:
        shared.note(f"ready: {', '.join(model.id for model in pulled)}")
    else:
        shared.note(f"nothing to pull: {', '.join(names)} is here")


@app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Default: all that are here.")
    ] = None,
    json: shared.Json = False,
) -> None:
    """Hash every file again and compare. Exit 6 where one is damaged or missing."""
    from podtool.errors import ModelError
    from podtool.store import ModelStore

    store = ModelStore()
    models = store.table.expand(names or list(store.table.models))
    if not names:
        models = [m for m in models if store.state(m.id) != "missing"]
    found = {m.id: store.verify(m.id) for m in models}
    if json:
        shared.json_rows({"id": i, "ok": not p, "problems": p} for i, p in found.items())
    else:
        rows = [[i, "; ".join(p) or "ok"] for i, p in found.items()]
        shared.table("Verified", ["model", "result"], rows, to_stdout=True)
    broken = [i for i, problems in found.items() if problems]
    if broken:
        raise ModelError(
            f"{len(broken)} of {len(found)} models are not as pulled: {', '.join(broken)}",
            f"podtool models rm {' '.join(broken)} && podtool models pull {' '.join(broken)}",
        )


@app.command()
def path(name: OneName) -> None:
    """The folder of a model's files. Exit 6 where it is not here."""
    from podtool.store import ModelStore

    typer.echo(str(ModelStore().folder(name)))


@app.command("rm")
def remove(names: Names) -> None:
    """Delete models from this machine."""
    from podtool.store import ModelStore, human

    store = ModelStore()
    for model in store.table.expand(names):
        shared.note(f"{model.id}: {human(store.remove(model.id))} freed")


def _licence(model: Model) -> str:
    return f"{model.licence} ({model.restricted})" if model.restricted else model.licence


def _facts(store: ModelStore, model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "stage": model.stage,
        "about": model.about,
        "licence": model.licence,
        "licence_url": model.licence_url,
        "restricted": model.restricted,
        "source": model.source,
        "bytes": model.bytes,
        "state": store.state(model.id),
        "path": str(store.place(model)),
        "digest": model.digest,
        "groups": list(model.groups),
        "files": [{"path": f.kept, "from": f.origin, "sha256": f.sha256} for f in model.files],
    }
