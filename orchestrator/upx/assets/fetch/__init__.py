"""Fetch files over the network: resumed, verified, several at once.

``fetch`` gets one file, ``fetch_all`` several, ``sweep_parts`` removes what was never finished. Who imports this loads
no ssl and no http: that comes with the first fetch.

    Want ──> lock of its part ──> a source ──> Place (hub, drive, plain address)
                                                 │ GET, Range where the part may be resumed
              parts/<key>.part <── judged <── Answer: redirects, proxies, stalls
                    │ hashed as it grows
                    ▼ length and sha256 right, else thrown away and fetched once more
              Got ──> take(), which renames it into its place
"""

from upx.assets.fetch.many import fetch_all
from upx.assets.fetch.network import Network
from upx.assets.fetch.one import fetch
from upx.assets.fetch.sweep import sweep_parts
from upx.assets.fetch.want import FetchProgress, Got, Job, Want

__all__ = ["FetchProgress", "Got", "Job", "Network", "Want", "fetch", "fetch_all", "sweep_parts"]
