from segloc_synth.cli import main

main()
