"""site.toml of a kit."""

import stat

import pytest
from gate_server import write_site

from client.node.settings import cohort_folder, read_settings, write_site_file
from client.site import read_site
from stsmm_core.errors import ConfigError


def test_the_apps_file_is_complete_private_and_keeps_its_salt(kit):
    first = read_site(write_site_file(kit, read_settings(kit)))
    path = write_site_file(kit, read_settings(kit))
    again = read_site(path)
    assert first.salt == again.salt
    assert first.name == "leiden"
    assert first.folder.is_absolute()
    for file in (path, kit / "state" / "salt"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min_cell = 3", "unknown setting"),
        ("threads = 0", "threads"),
        ("[policy]\nrounds = 1", "rounds_a_day"),
        ("device = cpu", "TOML"),
    ],
)
def test_mistakes_are_named(kit, text, said):
    write_site(kit, text)
    with pytest.raises(ConfigError, match=said):
        read_settings(kit)


@pytest.mark.parametrize(("cohort", "said"), [("", "empty"), ("here", "full path"), ("/nowhere", "no folder")])
def test_folders_are_there(kit, data, cohort, said):
    write_site(kit, f'data_folder = "{data}"\ncohort = "{cohort}"')
    with pytest.raises(ConfigError, match=said):
        cohort_folder(kit, read_settings(kit))


def test_a_link_out_of_the_data_folder_is_found(kit, tmp_path):
    data, outside = tmp_path / "data", tmp_path / "outside"
    (data / "cohort" / "images").mkdir(parents=True)
    (outside / "p1").mkdir(parents=True)
    write_site(kit, f'data_folder = "{data}"\ncohort = "{data / "cohort"}"')
    assert cohort_folder(kit, read_settings(kit)) == data / "cohort"
    (data / "cohort" / "images" / "p1").symlink_to(outside / "p1")
    with pytest.raises(ConfigError, match="outside data_folder"):
        cohort_folder(kit, read_settings(kit))
