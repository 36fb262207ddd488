"""The endpoints that hosts call: they list, disable, enable and deregister workers, stream their events, and name the
newest releases.
"""
