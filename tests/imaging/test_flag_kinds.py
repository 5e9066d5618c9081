"""Who only counts flags does not load the image library."""

import subprocess
import sys


def test_the_report_tables_do_not_load_the_image_library():
    code = "import sys, stsmm_core.report.tables; sys.exit('SimpleITK' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
