import sys
from types import ModuleType

import pytest
from consortium_file import CONSORTIUM, NOW

from server.deploy.project import read_project
from server.deploy.provision import provision


@pytest.fixture(scope="session")
def project_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("project") / "consortium.toml"
    path.write_text(CONSORTIUM)
    return path


@pytest.fixture(scope="session")
def project(project_file):
    return read_project(project_file)


@pytest.fixture
def kits(tmp_path, project):
    """OUT of a consortium in which oslo makes its own key."""
    provision(project, tmp_path / "kits", own_keys=["oslo"], now=NOW)
    return tmp_path / "kits"


@pytest.fixture
def control(monkeypatch):
    """Stands for what tells the running SuperLink: notes who may connect at each call."""
    calls = []
    module = ModuleType("server.deploy.control")

    def register_nodes(kit):
        names = sorted(path.stem for path in (kit / "nodes").glob("*.pub"))
        calls.append(("register", names))
        return dict.fromkeys(names, 1)

    def unregister_node(kit, name):
        calls.append(("unregister", name, (kit / "nodes" / f"{name}.pub").exists()))

    module.ServerUnreachableError = type("ServerUnreachableError", (Exception,), {})
    module.register_nodes, module.unregister_node = register_nodes, unregister_node
    monkeypatch.setitem(sys.modules, "server.deploy.control", module)
    return calls
