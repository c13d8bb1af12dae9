# Starts a program with sockets handed over as systemd does it: perl hand-over.pl KIND... -- PROGRAM ARGUMENT...
use strict;
use warnings;

# What is opened from here on outlives exec.
BEGIN { $^F = 255 }

use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();

my %open = (
    tcp        => sub { IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'tcp', Listen => 16) },
    udp        => sub { IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'udp') },
    unix       => sub { IO::Socket::UNIX->new(Local => "\0hand-over-$$", Listen => 16) },
    connection => sub {
        our $peer = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'tcp', Listen => 16);
        IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $peer->sockport, Proto => 'tcp');
    },
    file => sub { open my $file, '<', '/dev/null'; $file },
);

my @handles;
while (defined(my $kind = shift)) {
    last if $kind eq '--';
    push @handles, $open{$kind}->() // die "$kind: $! $@";
}
# They were opened in this order, so none is put where a later one still is.
my $descriptor = 3;
POSIX::dup2(fileno $_, $descriptor++) // die "dup2: $!" for @handles;
@ENV{qw(LISTEN_FDS LISTEN_PID)} = (scalar @handles, $$);
exec @ARGV or die "exec: $!";
