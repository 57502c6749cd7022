"""How addresses are written where what is to be done stands behind a colon: `/v1/studies/first:pause`."""

from starlette.convertors import StringConvertor, register_url_convertor


class _Plain(StringConvertor):
    regex = "[^/:]+"


register_url_convertor("plain", _Plain())

NAME = "{name:plain}"
"""A name with nothing behind it, so that methods of the actions are not refused for their address."""
VERSION = "{version:plain}"
ID = "{id:plain}"
