complete -c debos -s b -l fakemachine-backend -d 'Machine to build in: auto takes KVM where it works, else none where that works' -r -f -a "auto\t''
kvm\t''
qemu\t''
uml\t''"
complete -c debos -l artifactdir -d 'Directory for archives, images and ostree repositories [default: the current one]' -r -F
complete -c debos -s t -l template-var -d 'Set a variable of the template' -r
complete -c debos -s s -l shell -d 'Shell for `--debug-shell`' -r
complete -c debos -l scratchsize -d 'Size of the machine\'s scratch space, in powers of 1000: `8GB`' -r
complete -c debos -s c -l cpus -d 'Processors of the machine [default: those of this one]' -r
complete -c debos -s m -l memory -d 'Memory of the machine, in powers of 1024: `4Gb` [default: 2Gb]' -r
complete -c debos -s e -l environ-var -d 'Set a variable in the environment of every action; an empty value unsets it' -r
complete -c debos -l debug-shell -d 'Open an interactive shell when an action fails'
complete -c debos -l show-boot -d 'Show what the machine\'s kernel says'
complete -c debos -s v -l verbose -d 'Show the output of actions'
complete -c debos -l print-recipe -d 'Print the recipe as the template renders it'
complete -c debos -l dry-run -d 'Check the recipe and all of its actions, but run none'
complete -c debos -l disable-fakemachine -d 'Build on this machine itself'
complete -c debos -l version -d 'Print the version'
complete -c debos -s h -l help -d 'Print help'
