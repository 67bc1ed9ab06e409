"""List, or capture, the pages to read.

python jobs/crawl.py recipes/demo.yaml
python jobs/crawl.py recipes/demo.yaml workspace=runs/mine crawl.source=warc 'crawl.paths=/data/*.warc.gz'
"""

from job import main
from webtochat import artifact, storage
from webtochat.artifact import Artifact
from webtochat.crawl import stage
from webtochat.run import Run


def crawl(run: Run) -> Artifact:
    """The crawl stage, with the miniweb served on loopback while it is captured, where the recipe asks for it."""
    committed = artifact.find(storage.join(run.directory, "crawl"))
    if run.recipe.miniweb is None or (committed is not None and not run.rebuild):
        return stage.crawl(run)
    from miniweb.server import serve
    from miniweb.settings import Settings

    with serve(Settings(**run.recipe.miniweb.model_dump())) as served:
        site = run.recipe.crawl.site.model_copy(update={"start": served.start, "resolve": served.resolve})
        return stage.crawl(run, site)


if __name__ == "__main__":
    main(__doc__, crawl)
