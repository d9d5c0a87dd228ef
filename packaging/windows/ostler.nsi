; The installer for Windows: for one user, no administrator rights. Written after NSIS's documentation and compiled
; in tests; it has not been run.
;
; The launcher's directory is the identity that Windows knows (taskbar, notifications, start at login), so its path
; never has a version in it. Versions are beside it and, after updates, below the user's own data.
Unicode true
SetCompressor /SOLID lzma
RequestExecutionLevel user
Name "Ostler"
OutFile "${TARGET}"
InstallDir "$LOCALAPPDATA\Programs\Ostler"
InstallDirRegKey HKCU "Software\Ostler" "InstallDir"
Icon "${ICON}"
UninstallIcon "${ICON}"
ShowInstDetails nevershow
ShowUninstDetails nevershow
BrandingText "Ostler ${VERSION}"
VIProductVersion "${NUMBERS}"
VIAddVersionKey "ProductName" "Ostler"
VIAddVersionKey "FileDescription" "Ostler's installer"
VIAddVersionKey "FileVersion" "${VERSION}"
VIAddVersionKey "ProductVersion" "${VERSION}"
VIAddVersionKey "LegalCopyright" "The Ostler authors, Apache License 2.0"

!include "LogicLib.nsh"
!include "FileFunc.nsh"
!include "x64.nsh"
!define UNINSTALL "Software\Microsoft\Windows\CurrentVersion\Uninstall\Ostler"
!define RUN "Software\Microsoft\Windows\CurrentVersion\Run"
!define APPROVED "Software\Microsoft\Windows\CurrentVersion\Explorer\StartupApproved\Run"

LicenseData "${LICENCE}"
Page license
Page directory
Page instfiles
UninstPage uninstConfirm
UninstPage instfiles

LoadLanguageFile "${NSISDIR}\Contrib\Language files\English.nlf"
LoadLanguageFile "${NSISDIR}\Contrib\Language files\German.nlf"
LoadLanguageFile "${NSISDIR}\Contrib\Language files\SimpChinese.nlf"
LangString STOPPED ${LANG_ENGLISH} "Ostler could not be asked to stop. Close it from its icon and try again."
LangString STOPPED ${LANG_GERMAN} "Ostler konnte nicht beendet werden. Beende es über sein Symbol und versuche es noch einmal."
LangString STOPPED ${LANG_SIMPCHINESE} "无法停止 Ostler。请从托盘图标退出后重试。"
LangString DATA ${LANG_ENGLISH} "Delete your data too: settings, tasks and their directories?"
LangString DATA ${LANG_GERMAN} "Auch deine Daten löschen: Einstellungen, Aufgaben und ihre Verzeichnisse?"
LangString DATA ${LANG_SIMPCHINESE} "是否同时删除您的数据：设置、任务及其目录？"

; A shortcut with an AppUserModelID: without one, Windows shows no notifications with buttons. NSIS's own command
; cannot set it, so the shell's objects are asked: IShellLinkW, its IPropertyStore, IPersistFile.
!macro Shortcut LINK TARGET_FILE ARGUMENTS ICON_FILE
    CreateShortcut "${LINK}" "${TARGET_FILE}" "${ARGUMENTS}" "${ICON_FILE}"
    System::Call "ole32::CoCreateInstance(g '{00021401-0000-0000-C000-000000000046}', p 0, i 1, g '{000214F9-0000-0000-C000-000000000046}', *p .r1) i.r0"
    ${If} $0 = 0
        System::Call "$1->0(g '{0000010b-0000-0000-C000-000000000046}', *p .r2) i.r0"
        ${If} $0 = 0
            System::Call "$2->5(w '${LINK}', i 2) i.r0"
            System::Call "$1->0(g '{886D8EEB-8CF2-4446-8D02-CDBA1DBDCF99}', *p .r3) i.r0"
            ${If} $0 = 0
                System::Call "ole32::CoTaskMemAlloc(p ${NSIS_PTR_SIZE}) p.r9"
                System::Call "*(&g16 '{9F4C2855-9F79-4B39-A8D0-E1D42DE1D5F3}', i 5) p.r4"
                System::Call "shlwapi::SHStrDupW(w '${APP_ID}', *p .r5) i.r0"
                System::Call "*(&i2 31, &i2 0, &i2 0, &i2 0, p r5, p 0) p.r6"
                System::Call "$3->6(p r4, p r6) i.r0"
                System::Call "$3->7() i.r0"
                System::Call "$2->6(w '${LINK}', i 1) i.r0"
                System::Call "ole32::PropVariantClear(p r6)"
                System::Call "ole32::CoTaskMemFree(p r9)"
                System::Free $4
                System::Free $6
                System::Call "$3->2()"
            ${EndIf}
            System::Call "$2->2()"
        ${EndIf}
        System::Call "$1->2()"
    ${EndIf}
!macroend

; A daemon closes its books when it is asked; its runs go on. Files in use are not overwritten.
!macro Stop
    ${If} ${FileExists} "$INSTDIR\launcher\ostler.exe"
        nsExec::Exec 'taskkill /IM ostler-desktop.exe'
        Pop $0
        nsExec::Exec '"$INSTDIR\launcher\ostler.exe" daemon stop'
        Pop $0
        ${If} $0 == "error"
            MessageBox MB_OK|MB_ICONEXCLAMATION "$(STOPPED)" /SD IDOK
            Abort
        ${EndIf}
    ${EndIf}
!macroend

Function .onInit
    ${IfNot} ${RunningX64}
        Abort
    ${EndIf}
FunctionEnd

Section "Ostler"
    !insertmacro Stop
    SetOutPath "$INSTDIR\launcher"
    File /r "${FILES}\launcher\*.*"
    SetOutPath "$INSTDIR\payload"
    File /r "${FILES}\payload\*.*"
    SetOutPath "$INSTDIR"
    File "${FILES}\install.json"
!ifdef ROOT
    File "${FILES}\root.json"
!endif
    File "/oname=ostler.ico" "${ICON}"
    WriteUninstaller "$INSTDIR\uninstall.exe"
    !insertmacro Shortcut "$SMPROGRAMS\Ostler.lnk" "$INSTDIR\launcher\ostler-desktop.exe" "" "$INSTDIR\ostler.ico"
    WriteRegStr HKCU "Software\Ostler" "InstallDir" "$INSTDIR"
    WriteRegStr HKCU "${UNINSTALL}" "DisplayName" "Ostler"
    WriteRegStr HKCU "${UNINSTALL}" "DisplayVersion" "${VERSION}"
    WriteRegStr HKCU "${UNINSTALL}" "Publisher" "The Ostler authors"
    WriteRegStr HKCU "${UNINSTALL}" "DisplayIcon" "$INSTDIR\ostler.ico"
    WriteRegStr HKCU "${UNINSTALL}" "InstallLocation" "$INSTDIR"
    WriteRegStr HKCU "${UNINSTALL}" "UninstallString" '"$INSTDIR\uninstall.exe"'
    WriteRegStr HKCU "${UNINSTALL}" "QuietUninstallString" '"$INSTDIR\uninstall.exe" /S'
    WriteRegDWORD HKCU "${UNINSTALL}" "EstimatedSize" ${SIZE_KB}
    WriteRegDWORD HKCU "${UNINSTALL}" "NoModify" 1
    WriteRegDWORD HKCU "${UNINSTALL}" "NoRepair" 1
SectionEnd

Section "Uninstall"
    !insertmacro Stop
    DeleteRegValue HKCU "${RUN}" "Ostler"
    DeleteRegValue HKCU "${APPROVED}" "Ostler"
    DeleteRegKey HKCU "${UNINSTALL}"
    DeleteRegKey HKCU "Software\Ostler"
    Delete "$SMPROGRAMS\Ostler.lnk"
    RMDir /r "$INSTDIR\launcher"
    RMDir /r "$INSTDIR\payload"
    Delete "$INSTDIR\install.json"
    Delete "$INSTDIR\root.json"
    Delete "$INSTDIR\ostler.ico"
    Delete "$INSTDIR\uninstall.exe"
    RMDir "$INSTDIR"
    ; A silent removal keeps the data.
    MessageBox MB_YESNO|MB_ICONQUESTION|MB_DEFBUTTON2 "$(DATA)" /SD IDNO IDNO kept
        RMDir /r "$LOCALAPPDATA\ostler"
        RMDir /r "$APPDATA\ostler"
    kept:
SectionEnd
