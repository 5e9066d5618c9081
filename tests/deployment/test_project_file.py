import re

import pytest
from consortium_file import CONSORTIUM

from server.deploy.project import read_project
from stsmm_core.errors import ConfigError


def read(tmp_path, text):
    path = tmp_path / "consortium.toml"
    path.write_text(text)
    return read_project(path)


def test_a_resolved_project_reads_as_the_same(tmp_path, project):
    assert read(tmp_path, project.to_toml()) == project
    assert project.server.certificate_names == ("stsmm.example.org", "10.0.0.5", "localhost", "127.0.0.1")
    assert project.policy.required_signatures == 0
    assert project.validity.server_days == 397


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "port = 9092",
            "prot = 9092",
            r"server\.prot: unknown key; choose from host, also, port, health_port, contact",
        ),
        ('name = "sarcoma-2026"', 'nam = "x"', r"nam: unknown key; choose from name, server, validity, policy, site"),
        ('name = "paris"', 'nom = "paris"', r"site\.2\.nom: unknown key; choose from name, contact"),
        ('name = "paris"', 'name = "leiden"', "two sites are named 'leiden' and 'leiden'"),
        ('name = "paris"', 'name = "Leiden"', "must differ in more than upper and lower case"),
        ('name = "paris"', 'name = "../paris"', r"site\.2\.name = '\.\./paris': use letters, digits"),
        ('name = "paris"', 'name = "paris\\n"', r"site\.2\.name = .*: use letters, digits"),
        ('name = "paris"', f'name = "{"p" * 41}"', r"site\.2\.name = .*at most 40"),
        ('name = "sarcoma-2026"', 'name = "sarcoma 2026"', "name = 'sarcoma 2026': use letters"),
        ("health_port = 9093", "health_port = 9092", "both 9092; give the health service a port of its own"),
        ("port = 9092", "port = 99999", r"server\.port = 99999: .*65535"),
        ("port = 9092", 'port = "9092"', r"server\.port = '9092'"),
        ('host = "stsmm.example.org"', 'host = "https://stsmm.example.org:9092"', "no scheme, no port"),
        ('host = "stsmm.example.org"', 'host = ""', "is not a name such as"),
        ('host = "stsmm.example.org"', "", r"server\.host: missing"),
        ('"10.0.0.5"', '"10.0.0.555"', r"server\.also: '10\.0\.0\.555' is not a name"),
        ('"10.0.0.5"', '"*.example.org"', "no wildcard"),
        ("[policy]", "[validity]\nca_days = 100\n[policy]", r"server_days \(397\) must not exceed ca_days \(100\)"),
        ("min_cell_size = 7", "min_cell_size = 0", r"policy\.min_cell_size = 0"),
        ("[[site]]", "[[sit]]", r"sit: unknown key"),
    ],
)
def test_a_fault_names_the_key_and_the_remedy(tmp_path, old, new, said):
    assert old in CONSORTIUM
    with pytest.raises(ConfigError, match=r"consortium\.toml") as error:
        read(tmp_path, CONSORTIUM.replace(old, new))
    assert re.search(said, str(error.value)), error.value


def test_no_sites_no_file_no_toml(tmp_path):
    with pytest.raises(ConfigError, match=r"site: missing; write a block \[\[site\]\]"):
        read(tmp_path, CONSORTIUM.split("[[site]]")[0])
    with pytest.raises(ConfigError, match="not valid TOML"):
        read(tmp_path, "name = ")
    with pytest.raises(ConfigError, match="no such project file"):
        read_project(tmp_path / "other.toml")


def test_an_address_of_version_6_is_a_host(tmp_path):
    project = read(tmp_path, CONSORTIUM.replace("stsmm.example.org", "2001:db8::5"))
    assert str(project.server.address) == "[2001:db8::5]:9092"
