from daemon_core.settings import certificates, installed

installed.begin()

with certificates.pointed_out():
    import aiohttp  # noqa: F401 - it makes its contexts now

from daemon_core.app import main  # noqa: E402

main()
