import socket
import urllib.request

import pytest

from vaegan.runtime import downloads


def test_server_that_sends_nothing_does_not_hang_a_download(monkeypatch):
    monkeypatch.setattr(downloads, "SECONDS_WITHOUT_DATA", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/file"
        with downloads.download_timeout(), pytest.raises(OSError, match="timed out"):
            urllib.request.urlopen(url)
    assert socket.getdefaulttimeout() is None
