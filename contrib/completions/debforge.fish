# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_debforge_global_optspecs
    string join \n h/help V/version
end

function __fish_debforge_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_debforge_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_debforge_using_subcommand
    set -l cmd (__fish_debforge_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c debforge -n "__fish_debforge_needs_command" -s h -l help -d 'Print help'
complete -c debforge -n "__fish_debforge_needs_command" -s V -l version -d 'Print version'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "build" -d 'Build a recipe'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "boot" -d 'Start an image in a virtual machine, its serial console in the terminal'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "check" -d 'Check a recipe, and that this machine can build it, without running anything'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "import" -d 'Write debos\'s recipes, which are Go templates, in Jinja'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "inspect" -d 'Show what is in an image or archive: partitions, file systems, boot loaders, kernels, packages'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "diff" -d 'Show what changed between two images or archives, packages first'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "lint-bootc" -d 'Check a root or image as `bootc container lint` does'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "plan" -d 'Show which steps a build would run, and why'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "shell" -d 'Open a shell in the root as it stands after a step, or where steps work in a mounted image, in that; what it changes is thrown away'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "store" -d 'Show or reduce what is kept for later builds'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "test-atomic" -d 'Test that an atomic system starts, takes an update, and finds its way back'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "doctor" -d 'Show what this machine can do, and how to get what is missing'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "actions" -d 'Show the manual of an action, or what actions there are'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "schema" -d 'Print the JSON Schema of recipes, for editors'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "completions" -d 'Print a script that completes debforge\'s arguments in a shell'
complete -c debforge -n "__fish_debforge_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c debforge -n "__fish_debforge_using_subcommand build" -s t -l template-var -d 'Set a variable of the template' -r
complete -c debforge -n "__fish_debforge_using_subcommand build" -l artifactdir -d 'Directory that artifacts go to and come from [default: .]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand build" -s e -l environ-var -d 'Set a variable in the environment of every step; an empty value unsets it' -r
complete -c debforge -n "__fish_debforge_using_subcommand build" -l templatedir -d 'Further directory that templates include from' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand build" -l template -d 'Language of the recipe\'s template; debos\'s recipes are Go templates' -r -f -a "auto\t'What the tags of each file say'
go\t'Go\'s text/template with slim-sprig\'s functions'
jinja\t'Jinja'"
complete -c debforge -n "__fish_debforge_using_subcommand build" -s b -l backend -d 'Where the build runs' -r -f -a "auto\t'Here where that works, else in the fastest machine that does'
local\t'Namespaces of this machine'
uml\t'User-mode Linux (amd64)'
kvm\t'QEMU with KVM'
qemu\t'QEMU with an emulated processor'"
complete -c debforge -n "__fish_debforge_using_subcommand build" -s m -l memory -d 'Memory of the machine, such as 4G; a bare number is in MiB [default: 2G]' -r
complete -c debforge -n "__fish_debforge_using_subcommand build" -s c -l cpus -d 'Processors of the machine [default: those of this one]; UML has one' -r
complete -c debforge -n "__fish_debforge_using_subcommand build" -l scratchsize -d 'Most that the machine\'s disk may hold, such as 100G [default: 64GiB]; it takes only what it holds' -r
complete -c debforge -n "__fish_debforge_using_subcommand build" -l kernel -d 'Kernel of the machine [default: an installed one, else Debian\'s]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand build" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand build" -l from -d 'Run this step and all after it, whatever the store has' -r
complete -c debforge -n "__fish_debforge_using_subcommand build" -s s -l shell -d 'Shell for `--debug-shell`' -r
complete -c debforge -n "__fish_debforge_using_subcommand build" -l strict -d 'Make what debos takes and ignores an error, as unknown keys; in Go templates it is a warning'
complete -c debforge -n "__fish_debforge_using_subcommand build" -l lenient -d 'Make it a warning in every recipe'
complete -c debforge -n "__fish_debforge_using_subcommand build" -l impure -d 'Let a Go template ask for the date, the environment, random numbers and hosts'
complete -c debforge -n "__fish_debforge_using_subcommand build" -l machine-root -d 'Use programs that debforge builds a root of, in place of those of this machine'
complete -c debforge -n "__fish_debforge_using_subcommand build" -l show-boot -d 'Show what the machine\'s kernel says'
complete -c debforge -n "__fish_debforge_using_subcommand build" -l disable-fakemachine -d 'The same as `--backend local`'
complete -c debforge -n "__fish_debforge_using_subcommand build" -s v -l verbose -d 'Show the output of the steps'
complete -c debforge -n "__fish_debforge_using_subcommand build" -l json -d 'Print events as JSON, one a line'
complete -c debforge -n "__fish_debforge_using_subcommand build" -l no-cache -d 'Use no result of an earlier build'
complete -c debforge -n "__fish_debforge_using_subcommand build" -l print-recipe -d 'Print the recipe as the template renders it, first'
complete -c debforge -n "__fish_debforge_using_subcommand build" -l dry-run -d 'Check and plan, but run nothing'
complete -c debforge -n "__fish_debforge_using_subcommand build" -l debug-shell -d 'Open a shell in the root when a step fails'
complete -c debforge -n "__fish_debforge_using_subcommand build" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l arch -d 'Architecture of the machine, as Debian names it [default: the image\'s]' -r
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l firmware -d 'What starts the image' -r -f -a "auto\t'EFI where the image has something for it, else BIOS, else U-Boot'
efi\t'UEFI'
bios\t'BIOS (amd64, i386)'
u-boot\t'U-Boot, which reads extlinux.conf and boot scripts'"
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l machine -d 'A board of QEMU in place of its generic machine, with options as QEMU takes them: `orangepi-pc`, `sifive_u`. The image is its SD card' -r
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l bios -d 'First program of the board (QEMU\'s -bios), such as U-Boot\'s SPL [default: the board\'s; that of the card for sifive_u]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l kernel -d 'Program that the board\'s first one starts (QEMU\'s -kernel), such as U-Boot' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l flash -d 'Raw file of the board\'s SPI flash, as large as the flash [default: none; for sifive_u, one that leads U-Boot to the card]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand boot" -s m -l memory -d 'Memory of the machine, such as 2G [default: 1G, or the board\'s]' -r
complete -c debforge -n "__fish_debforge_using_subcommand boot" -s c -l cpus -d 'Processors of the machine [default: those of this one, at most 4]' -r
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l accel -d 'How the machine\'s processor runs' -r -f -a "auto\t'KVM where it works, else emulation'
kvm\t'This machine\'s processor'
tcg\t'Emulation'"
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l expect -d 'Wait until this text is on the console, then end the machine; several are waited for one after the other' -r
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l timeout -d 'End the machine after so many seconds [default: 600 with --expect, else never]' -r
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l log -d 'Keep what is said on the console in a file' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l size -d 'Disk of this size, larger than the image: first boot may grow into it' -r
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l ssh -d 'Let this port of the loopback interface lead to the machine\'s ssh' -r
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l port -d 'Let a port of the loopback interface lead to one of the machine' -r
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l secure-boot -d 'Start only what is signed, with Microsoft\'s keys as computers are sold with'
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l persist -d 'Let the machine write to the image itself, and to the file of `--flash`'
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l cdrom -d 'Put the image in as a CD (ISO) rather than as a disk'
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l graphical -d 'Give the machine a screen, in a window'
complete -c debforge -n "__fish_debforge_using_subcommand boot" -l print -d 'Print the commands that start the machine, and start nothing'
complete -c debforge -n "__fish_debforge_using_subcommand boot" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c debforge -n "__fish_debforge_using_subcommand check" -s t -l template-var -d 'Set a variable of the template' -r
complete -c debforge -n "__fish_debforge_using_subcommand check" -l artifactdir -d 'Directory that artifacts go to and come from [default: .]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand check" -s e -l environ-var -d 'Set a variable in the environment of every step; an empty value unsets it' -r
complete -c debforge -n "__fish_debforge_using_subcommand check" -l templatedir -d 'Further directory that templates include from' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand check" -l template -d 'Language of the recipe\'s template; debos\'s recipes are Go templates' -r -f -a "auto\t'What the tags of each file say'
go\t'Go\'s text/template with slim-sprig\'s functions'
jinja\t'Jinja'"
complete -c debforge -n "__fish_debforge_using_subcommand check" -s b -l backend -d 'Where the build runs' -r -f -a "auto\t'Here where that works, else in the fastest machine that does'
local\t'Namespaces of this machine'
uml\t'User-mode Linux (amd64)'
kvm\t'QEMU with KVM'
qemu\t'QEMU with an emulated processor'"
complete -c debforge -n "__fish_debforge_using_subcommand check" -s m -l memory -d 'Memory of the machine, such as 4G; a bare number is in MiB [default: 2G]' -r
complete -c debforge -n "__fish_debforge_using_subcommand check" -s c -l cpus -d 'Processors of the machine [default: those of this one]; UML has one' -r
complete -c debforge -n "__fish_debforge_using_subcommand check" -l scratchsize -d 'Most that the machine\'s disk may hold, such as 100G [default: 64GiB]; it takes only what it holds' -r
complete -c debforge -n "__fish_debforge_using_subcommand check" -l kernel -d 'Kernel of the machine [default: an installed one, else Debian\'s]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand check" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand check" -l strict -d 'Make what debos takes and ignores an error, as unknown keys; in Go templates it is a warning'
complete -c debforge -n "__fish_debforge_using_subcommand check" -l lenient -d 'Make it a warning in every recipe'
complete -c debforge -n "__fish_debforge_using_subcommand check" -l impure -d 'Let a Go template ask for the date, the environment, random numbers and hosts'
complete -c debforge -n "__fish_debforge_using_subcommand check" -l machine-root -d 'Use programs that debforge builds a root of, in place of those of this machine'
complete -c debforge -n "__fish_debforge_using_subcommand check" -l show-boot -d 'Show what the machine\'s kernel says'
complete -c debforge -n "__fish_debforge_using_subcommand check" -l disable-fakemachine -d 'The same as `--backend local`'
complete -c debforge -n "__fish_debforge_using_subcommand check" -l recipe-only -d 'Look at the recipe alone, not at this machine'
complete -c debforge -n "__fish_debforge_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c debforge -n "__fish_debforge_using_subcommand import" -s o -l output -d 'File to write [default: standard output]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand import" -l output-dir -d 'Directory to write below; each recipe keeps its place among the others' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand import" -s t -l template-var -d 'Set a variable of the template, for the comparison' -r
complete -c debforge -n "__fish_debforge_using_subcommand import" -s r -l recursive -d 'Translate the recipes that these call, too'
complete -c debforge -n "__fish_debforge_using_subcommand import" -l force -d 'Write what could be translated, with the other tags as they are; replace files that are there'
complete -c debforge -n "__fish_debforge_using_subcommand import" -l comment-ignored -d 'Comment out keys that debos ignores and debforge does not'
complete -c debforge -n "__fish_debforge_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c debforge -n "__fish_debforge_using_subcommand inspect" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand inspect" -l packages -d 'List the installed packages'
complete -c debforge -n "__fish_debforge_using_subcommand inspect" -l json -d 'Print JSON'
complete -c debforge -n "__fish_debforge_using_subcommand inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c debforge -n "__fish_debforge_using_subcommand diff" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand diff" -l text -d 'Show the lines that changed in /etc'
complete -c debforge -n "__fish_debforge_using_subcommand diff" -l files -d 'List every file, rather than directories where there are many'
complete -c debforge -n "__fish_debforge_using_subcommand diff" -l json -d 'Print JSON'
complete -c debforge -n "__fish_debforge_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c debforge -n "__fish_debforge_using_subcommand lint-bootc" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand lint-bootc" -l fatal-warnings -d 'Let checks fail the command that only warn'
complete -c debforge -n "__fish_debforge_using_subcommand lint-bootc" -l list -d 'Say what each check looks for, and check nothing'
complete -c debforge -n "__fish_debforge_using_subcommand lint-bootc" -l json -d 'Print JSON'
complete -c debforge -n "__fish_debforge_using_subcommand lint-bootc" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c debforge -n "__fish_debforge_using_subcommand plan" -s t -l template-var -d 'Set a variable of the template' -r
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l artifactdir -d 'Directory that artifacts go to and come from [default: .]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand plan" -s e -l environ-var -d 'Set a variable in the environment of every step; an empty value unsets it' -r
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l templatedir -d 'Further directory that templates include from' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l template -d 'Language of the recipe\'s template; debos\'s recipes are Go templates' -r -f -a "auto\t'What the tags of each file say'
go\t'Go\'s text/template with slim-sprig\'s functions'
jinja\t'Jinja'"
complete -c debforge -n "__fish_debforge_using_subcommand plan" -s b -l backend -d 'Where the build runs' -r -f -a "auto\t'Here where that works, else in the fastest machine that does'
local\t'Namespaces of this machine'
uml\t'User-mode Linux (amd64)'
kvm\t'QEMU with KVM'
qemu\t'QEMU with an emulated processor'"
complete -c debforge -n "__fish_debforge_using_subcommand plan" -s m -l memory -d 'Memory of the machine, such as 4G; a bare number is in MiB [default: 2G]' -r
complete -c debforge -n "__fish_debforge_using_subcommand plan" -s c -l cpus -d 'Processors of the machine [default: those of this one]; UML has one' -r
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l scratchsize -d 'Most that the machine\'s disk may hold, such as 100G [default: 64GiB]; it takes only what it holds' -r
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l kernel -d 'Kernel of the machine [default: an installed one, else Debian\'s]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l from -d 'Plan to run this step and all after it, whatever the store has' -r
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l strict -d 'Make what debos takes and ignores an error, as unknown keys; in Go templates it is a warning'
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l lenient -d 'Make it a warning in every recipe'
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l impure -d 'Let a Go template ask for the date, the environment, random numbers and hosts'
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l machine-root -d 'Use programs that debforge builds a root of, in place of those of this machine'
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l show-boot -d 'Show what the machine\'s kernel says'
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l disable-fakemachine -d 'The same as `--backend local`'
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l json -d 'Print the plan as JSON'
complete -c debforge -n "__fish_debforge_using_subcommand plan" -l no-cache -d 'Plan as if nothing were in the store'
complete -c debforge -n "__fish_debforge_using_subcommand plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c debforge -n "__fish_debforge_using_subcommand shell" -s t -l template-var -d 'Set a variable of the template' -r
complete -c debforge -n "__fish_debforge_using_subcommand shell" -l artifactdir -d 'Directory that artifacts go to and come from [default: .]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand shell" -s e -l environ-var -d 'Set a variable in the environment of every step; an empty value unsets it' -r
complete -c debforge -n "__fish_debforge_using_subcommand shell" -l templatedir -d 'Further directory that templates include from' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand shell" -l template -d 'Language of the recipe\'s template; debos\'s recipes are Go templates' -r -f -a "auto\t'What the tags of each file say'
go\t'Go\'s text/template with slim-sprig\'s functions'
jinja\t'Jinja'"
complete -c debforge -n "__fish_debforge_using_subcommand shell" -s b -l backend -d 'Where the build runs' -r -f -a "auto\t'Here where that works, else in the fastest machine that does'
local\t'Namespaces of this machine'
uml\t'User-mode Linux (amd64)'
kvm\t'QEMU with KVM'
qemu\t'QEMU with an emulated processor'"
complete -c debforge -n "__fish_debforge_using_subcommand shell" -s m -l memory -d 'Memory of the machine, such as 4G; a bare number is in MiB [default: 2G]' -r
complete -c debforge -n "__fish_debforge_using_subcommand shell" -s c -l cpus -d 'Processors of the machine [default: those of this one]; UML has one' -r
complete -c debforge -n "__fish_debforge_using_subcommand shell" -l scratchsize -d 'Most that the machine\'s disk may hold, such as 100G [default: 64GiB]; it takes only what it holds' -r
complete -c debforge -n "__fish_debforge_using_subcommand shell" -l kernel -d 'Kernel of the machine [default: an installed one, else Debian\'s]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand shell" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand shell" -l after -d 'Number of the step; the last one where it is left out. Steps that the store does not have are run' -r
complete -c debforge -n "__fish_debforge_using_subcommand shell" -s s -l shell -d 'Program to run' -r
complete -c debforge -n "__fish_debforge_using_subcommand shell" -l strict -d 'Make what debos takes and ignores an error, as unknown keys; in Go templates it is a warning'
complete -c debforge -n "__fish_debforge_using_subcommand shell" -l lenient -d 'Make it a warning in every recipe'
complete -c debforge -n "__fish_debforge_using_subcommand shell" -l impure -d 'Let a Go template ask for the date, the environment, random numbers and hosts'
complete -c debforge -n "__fish_debforge_using_subcommand shell" -l machine-root -d 'Use programs that debforge builds a root of, in place of those of this machine'
complete -c debforge -n "__fish_debforge_using_subcommand shell" -l show-boot -d 'Show what the machine\'s kernel says'
complete -c debforge -n "__fish_debforge_using_subcommand shell" -l disable-fakemachine -d 'The same as `--backend local`'
complete -c debforge -n "__fish_debforge_using_subcommand shell" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c debforge -n "__fish_debforge_using_subcommand store; and not __fish_seen_subcommand_from size list verify prune clear help" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand store; and not __fish_seen_subcommand_from size list verify prune clear help" -l json -d 'Print JSON'
complete -c debforge -n "__fish_debforge_using_subcommand store; and not __fish_seen_subcommand_from size list verify prune clear help" -s h -l help -d 'Print help'
complete -c debforge -n "__fish_debforge_using_subcommand store; and not __fish_seen_subcommand_from size list verify prune clear help" -f -a "size" -d 'Show how much the store holds of each kind, and its bound'
complete -c debforge -n "__fish_debforge_using_subcommand store; and not __fish_seen_subcommand_from size list verify prune clear help" -f -a "list" -d 'List the entries, most recently used first'
complete -c debforge -n "__fish_debforge_using_subcommand store; and not __fish_seen_subcommand_from size list verify prune clear help" -f -a "verify" -d 'Look at every byte, and remove what is not as it was kept'
complete -c debforge -n "__fish_debforge_using_subcommand store; and not __fish_seen_subcommand_from size list verify prune clear help" -f -a "prune" -d 'Remove what was used least recently, down to a size (the bound, without arguments) or an age'
complete -c debforge -n "__fish_debforge_using_subcommand store; and not __fish_seen_subcommand_from size list verify prune clear help" -f -a "clear" -d 'Remove everything that no running build uses'
complete -c debforge -n "__fish_debforge_using_subcommand store; and not __fish_seen_subcommand_from size list verify prune clear help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from size" -l set -d 'Keep the store to this size from now on, such as 40G' -r
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from size" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from size" -l json -d 'Print JSON'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from size" -s h -l help -d 'Print help'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from list" -l kind -d 'Only those of a kind: tree, output, download, package, state, partial or machine' -r
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from list" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from list" -l json -d 'Print JSON'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from verify" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from verify" -l json -d 'Print JSON'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from prune" -l to -d 'Leave at most so much, such as 5G' -r
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from prune" -l older-than -d 'Remove what was not used for so long, such as 30d, 12h or 2w' -r
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from prune" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from prune" -l json -d 'Print JSON'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from clear" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from clear" -s y -l yes -d 'Do not ask'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from clear" -l json -d 'Print JSON'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from clear" -s h -l help -d 'Print help'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from help" -f -a "size" -d 'Show how much the store holds of each kind, and its bound'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the entries, most recently used first'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Look at every byte, and remove what is not as it was kept'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from help" -f -a "prune" -d 'Remove what was used least recently, down to a size (the bound, without arguments) or an age'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from help" -f -a "clear" -d 'Remove everything that no running build uses'
complete -c debforge -n "__fish_debforge_using_subcommand store; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l image -d 'Test an image that is built already' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l repository -d 'Repository with the image\'s commit and that of the update' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l update -d 'Branch or commit that the image is updated to' -r
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l stage -d 'Run only this stage and those that it needs; several may be named' -r -f -a "boot\t''
update\t''
rollback\t''
same-kernel\t''
unsigned\t''
rebase\t''
power-cut\t''
fsck\t''"
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l firmware -d 'What starts the image' -r -f -a "auto\t'EFI where the image has something for it, else BIOS, else U-Boot'
efi\t'UEFI'
bios\t'BIOS (amd64, i386)'
u-boot\t'U-Boot, which reads extlinux.conf and boot scripts'"
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l accel -d 'How the tested machine\'s processor runs' -r -f -a "auto\t'KVM where it works, else emulation'
kvm\t'This machine\'s processor'
tcg\t'Emulation'"
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l guest-memory -d 'Memory of the tested machine, such as 2G [default: 1G]' -r
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l timeout -d 'Seconds that the system may take to start, and a command in it to be done' -r
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l log -d 'Keep the log here [default: a file in the store]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -s t -l template-var -d 'Set a variable of the template' -r
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l artifactdir -d 'Directory that artifacts go to and come from [default: .]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -s e -l environ-var -d 'Set a variable in the environment of every step; an empty value unsets it' -r
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l templatedir -d 'Further directory that templates include from' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l template -d 'Language of the recipe\'s template; debos\'s recipes are Go templates' -r -f -a "auto\t'What the tags of each file say'
go\t'Go\'s text/template with slim-sprig\'s functions'
jinja\t'Jinja'"
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -s b -l backend -d 'Where the build runs' -r -f -a "auto\t'Here where that works, else in the fastest machine that does'
local\t'Namespaces of this machine'
uml\t'User-mode Linux (amd64)'
kvm\t'QEMU with KVM'
qemu\t'QEMU with an emulated processor'"
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -s m -l memory -d 'Memory of the machine, such as 4G; a bare number is in MiB [default: 2G]' -r
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -s c -l cpus -d 'Processors of the machine [default: those of this one]; UML has one' -r
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l scratchsize -d 'Most that the machine\'s disk may hold, such as 100G [default: 64GiB]; it takes only what it holds' -r
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l kernel -d 'Kernel of the machine [default: an installed one, else Debian\'s]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l fast -d 'Hand the kernel to QEMU, without firmware and boot loader'
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l secure-boot -d 'Start only what is signed, with Microsoft\'s keys as computers are sold with'
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -s v -l verbose -d 'Show the output of the builds\' steps'
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l json -d 'Print events as JSON, one a line'
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l strict -d 'Make what debos takes and ignores an error, as unknown keys; in Go templates it is a warning'
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l lenient -d 'Make it a warning in every recipe'
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l impure -d 'Let a Go template ask for the date, the environment, random numbers and hosts'
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l machine-root -d 'Use programs that debforge builds a root of, in place of those of this machine'
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l show-boot -d 'Show what the machine\'s kernel says'
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -l disable-fakemachine -d 'The same as `--backend local`'
complete -c debforge -n "__fish_debforge_using_subcommand test-atomic" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c debforge -n "__fish_debforge_using_subcommand doctor" -l store -d 'Directory that keeps layers, packages and downloads [default: ~/.cache/debforge]' -r -F
complete -c debforge -n "__fish_debforge_using_subcommand doctor" -l json -d 'Print JSON'
complete -c debforge -n "__fish_debforge_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c debforge -n "__fish_debforge_using_subcommand actions" -l markdown -d 'Print Markdown'
complete -c debforge -n "__fish_debforge_using_subcommand actions" -s h -l help -d 'Print help'
complete -c debforge -n "__fish_debforge_using_subcommand schema" -s h -l help -d 'Print help'
complete -c debforge -n "__fish_debforge_using_subcommand completions" -s h -l help -d 'Print help'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "build" -d 'Build a recipe'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "boot" -d 'Start an image in a virtual machine, its serial console in the terminal'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "check" -d 'Check a recipe, and that this machine can build it, without running anything'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "import" -d 'Write debos\'s recipes, which are Go templates, in Jinja'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "inspect" -d 'Show what is in an image or archive: partitions, file systems, boot loaders, kernels, packages'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "diff" -d 'Show what changed between two images or archives, packages first'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "lint-bootc" -d 'Check a root or image as `bootc container lint` does'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "plan" -d 'Show which steps a build would run, and why'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "shell" -d 'Open a shell in the root as it stands after a step, or where steps work in a mounted image, in that; what it changes is thrown away'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "store" -d 'Show or reduce what is kept for later builds'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "test-atomic" -d 'Test that an atomic system starts, takes an update, and finds its way back'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "doctor" -d 'Show what this machine can do, and how to get what is missing'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "actions" -d 'Show the manual of an action, or what actions there are'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "schema" -d 'Print the JSON Schema of recipes, for editors'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "completions" -d 'Print a script that completes debforge\'s arguments in a shell'
complete -c debforge -n "__fish_debforge_using_subcommand help; and not __fish_seen_subcommand_from build boot check import inspect diff lint-bootc plan shell store test-atomic doctor actions schema completions help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c debforge -n "__fish_debforge_using_subcommand help; and __fish_seen_subcommand_from store" -f -a "size" -d 'Show how much the store holds of each kind, and its bound'
complete -c debforge -n "__fish_debforge_using_subcommand help; and __fish_seen_subcommand_from store" -f -a "list" -d 'List the entries, most recently used first'
complete -c debforge -n "__fish_debforge_using_subcommand help; and __fish_seen_subcommand_from store" -f -a "verify" -d 'Look at every byte, and remove what is not as it was kept'
complete -c debforge -n "__fish_debforge_using_subcommand help; and __fish_seen_subcommand_from store" -f -a "prune" -d 'Remove what was used least recently, down to a size (the bound, without arguments) or an age'
complete -c debforge -n "__fish_debforge_using_subcommand help; and __fish_seen_subcommand_from store" -f -a "clear" -d 'Remove everything that no running build uses'
