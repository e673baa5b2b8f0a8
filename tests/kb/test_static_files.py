"""Scripts and style sheets as an install serves them."""

import re
from pathlib import Path

from django.core.files.storage import FileSystemStorage

from kb.files import StaticFiles

OURS = Path(__file__).resolve().parents[2] / "kb/static"


def test_scripts_import_each_other_by_the_names_that_pages_load(tmp_path: Path) -> None:
    storage = StaticFiles(location=tmp_path, base_url="/static/")
    paths = [path.relative_to(OURS).as_posix() for path in OURS.rglob("*.*")]
    found = {path: (FileSystemStorage(OURS), path) for path in paths}
    for name, (source, path) in found.items():
        with source.open(path) as file:
            storage.save(name, file)

    list(storage.post_process(found, dry_run=False))

    names = set(storage.hashed_files.values())
    scripts = [(tmp_path / name).read_text() for name in names if name.endswith(".js")]
    imported = re.findall(r'^import [^"]*"\./([^"]+)"', "\n".join(scripts), re.M)
    assert imported
    assert {f"kb/{name}" for name in imported} <= names
