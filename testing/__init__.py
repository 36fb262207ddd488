"""What tests of several apps share; nothing here runs in production.

`world` is what there is, `processes` what runs, `probes` what is looked at.
"""
