"""The desktop's catalogues: texts are collected from the sources, translated in ``resources/translations``,
and compiled into ``desktop/locale``, which is what is shipped.

``packaging/translations`` does all of it; with ``--check`` it only says what is missing.
"""
