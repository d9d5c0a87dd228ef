"""The language of the whole application: Ostler's own words, Qt's, and the direction they run in."""

from __future__ import annotations

from PySide6.QtCore import QLibraryInfo, QLocale, QTranslator
from PySide6.QtWidgets import QApplication

from desktop.text import LANGUAGES, choose_language


class Language:
    """Attributes:
    name: The one in force, such as ``de``.
    """

    def __init__(self, app: QApplication) -> None:
        self._app = app
        self._system = QLocale.system()
        self._qt: QTranslator | None = None
        self.name = ""

    def choose(self, wanted: str) -> bool:
        """Take a language, or with ``system`` that of the desktop; whether it is another one than before.

        Windows that are there keep the words that they were made with.
        """
        names = [wanted] if wanted in LANGUAGES else self._system.uiLanguages()
        name = choose_language(names)
        if name == self.name:
            return False
        self.name = name
        # Numbers and times stay as the system has them where it speaks this language.
        locale = self._system if self._speaks(name) else QLocale(name)
        QLocale.setDefault(locale)
        self._app.setLayoutDirection(locale.textDirection())
        if self._qt is not None:
            self._app.removeTranslator(self._qt)
            self._qt = None
        if name != "en":
            translator = QTranslator(self._app)
            place = QLibraryInfo.path(QLibraryInfo.LibraryPath.TranslationsPath)
            if translator.load(f"qtbase_{name}", place):
                self._app.installTranslator(translator)
                self._qt = translator
        return True

    def _speaks(self, name: str) -> bool:
        return self._system.name().partition("_")[0] == name.partition("_")[0]
