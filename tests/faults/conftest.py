"""Show what differs where a helper's assert fails, too."""

import pytest

pytest.register_assert_rewrite("tests.faults.session")
