#!/bin/sh
# From a table of your own to the first search. Add a column `uri` with your audio, then
# `raymtr embed` before `raymtr index`, and the same searches hear the music too.
set -eu
here=$(dirname "$0")
workspace=${1:-own-workspace}

raymtr scan "$here/tracks.csv" --workspace "$workspace"
raymtr index --workspace "$workspace"
raymtr search "slow piano" --workspace "$workspace" -k 3
raymtr search "similar to Ada Verne" --where "bpm > 100 and mood = 'dark'" --workspace "$workspace" -k 3
